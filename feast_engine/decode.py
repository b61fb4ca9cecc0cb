"""Stored cells (see `feast_engine.layout`) decoded a column at a time.

Where an answer's cells lie is known as a `Table`. Numbers and event times are read from its bytes
by compiled functions; texts and lists, which become objects anyway, each from its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from contracts.errors import ServiceError
from contracts.features import DType
from feast_engine import compiled

Cell = bytes | None
"""A field of a hash; None where there is none."""
Column = npt.NDArray[Any]

# first byte of a Value: field number << 3 | wire type
_TEXT_TAG, _INT64_LIST_TAG, _TEXT_LIST_TAG = 0x12, 0x72, 0x62
_TOLD = {
    compiled.OTHER_TAG: "another first byte",
    compiled.TOO_LONG: "more than 10 bytes of a number",
    compiled.OTHER_SHAPE: "another number of bytes",
}


class Table(NamedTuple):
    """Where the cells of some rows lie in `buffer`. starts, sizes: [rows, fields]; size -1: no cell.
    Sizes may be set to -1, which hides cells."""

    buffer: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def cells(self, fields: Sequence[int]) -> list[Cell]:
        """Of all rows of the first field, then of the next."""
        raw = self.buffer.tobytes()
        starts, sizes = (each[:, fields].ravel("F").tolist() for each in (self.starts, self.sizes))
        return [
            raw[start : start + size] if size >= 0 else None
            for start, size in zip(starts, sizes, strict=True)
        ]


def table_of(rows: Sequence[Sequence[Cell]], fields: int) -> Table:
    """The table of rows of so many cells. ValueError where a row has another number of them."""
    if any(len(row) != fields for row in rows):
        raise ValueError(f"expected {fields} cells a row")
    cells = list(chain.from_iterable(rows))
    found = np.fromiter((-1 if each is None else len(each) for each in cells), np.int64, len(cells))
    ends = np.maximum(found, 0).cumsum()
    raw = bytearray(b"".join([each or b"" for each in cells]))
    shape = (len(rows), fields)
    starts = (ends - np.maximum(found, 0)).reshape(shape)
    return Table(np.frombuffer(raw, np.uint8), starts, found.reshape(shape))


def decode_column(dtype: DType, cells: Sequence[Cell]) -> Column:
    """The values of one feature over rows; missing ones are nan, 0, None or [] by type.

    ServiceError where something else is stored than the type says.
    """
    column: Column = decode_columns(dtype, table_of([[cell] for cell in cells], 1), [0])[0]
    return column


def decode_columns(dtype: DType, table: Table, fields: Sequence[int]) -> Column:
    """The same of some fields of one type [fields, rows]: the price of a call is paid once."""
    shape = len(fields), len(table.starts)
    places = np.array(fields, np.int64)
    if dtype is DType.float32:
        bits = np.empty(shape, np.uint32)
        _check(compiled.floats(*table, places, bits), dtype)
        return bits.view(np.float32)
    if dtype is DType.int64:
        numbers = np.empty(shape, np.int64)
        _check(compiled.int64s(*table, places, numbers), dtype)
        return numbers
    try:
        return _DECODERS[dtype](table.cells(fields)).reshape(shape)
    except (ValueError, IndexError) as error:
        _other_type(dtype, error)


def decode_timestamps(table: Table, field: int) -> npt.NDArray[np.int64]:
    """Event times in milliseconds [rows]; -1 where there is none. ServiceError for other bytes."""
    times = np.empty(len(table.starts), np.int64)
    _check(compiled.timestamps(*table, field, times), "an event time")
    return times


def _check(said: int, expected: str) -> None:
    if said != compiled.FITS:
        _other_type(expected, _TOLD[said])


def _other_type(expected: str, error: object) -> NoReturn:
    raise ServiceError(
        f"the online store holds another type than {expected} ({error}): "
        "after a change of type, materialise again (./nextclick train) or empty the store"
    ) from None


def _decode_texts(cells: Sequence[Cell]) -> Column:
    return _objects([_decode_text(cell) if cell else None for cell in cells])


def _decode_text(cell: bytes) -> str:
    if cell[0] == _TEXT_TAG and cell[1] == len(cell) - 2 < 0x80:
        return cell[2:].decode()
    return _body(cell, 0, _TEXT_TAG)[0].decode()


def _decode_int64_lists(cells: Sequence[Cell]) -> Column:
    return _objects([_decode_int64_list(cell) if cell else [] for cell in cells])


def _decode_int64_list(cell: bytes) -> list[int]:
    body, _ = _body(cell, 0, _INT64_LIST_TAG)
    if not body:
        return []
    raw = np.frombuffer(_body(body, 0, 0x0A)[0], dtype=np.uint8)
    last = (raw & 0x80) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    places = np.arange(len(raw)) - np.repeat(starts, np.diff([*starts, len(raw)]))
    digits = (raw & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    values: list[int] = np.add.reduceat(digits, starts).view(np.int64).tolist()
    return values


def _decode_text_lists(cells: Sequence[Cell]) -> Column:
    return _objects([_decode_text_list(cell) if cell else [] for cell in cells])


def _decode_text_list(cell: bytes) -> list[str]:
    body, _ = _body(cell, 0, _TEXT_LIST_TAG)
    texts, place = [], 0
    while place < len(body):
        raw, place = _body(body, place, 0x0A)
        texts.append(raw.decode())
    return texts


_DECODERS: dict[DType, Callable[[Sequence[Cell]], Column]] = {
    DType.string: _decode_texts,
    DType.list_int64: _decode_int64_lists,
    DType.list_string: _decode_text_lists,
}


def _body(raw: bytes, place: int, tag: int) -> tuple[bytes, int]:
    """The length-delimited field that starts at `place`, and where the next one starts."""
    if raw[place] != tag:
        raise ValueError(f"first byte {raw[place]}")
    size, start = _read_varint(raw, place + 1)
    return raw[start : start + size], start + size


def _read_varint(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def _objects(values: Sequence[Any]) -> Column:
    """An array of objects, also where the values are lists of one length."""
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out
