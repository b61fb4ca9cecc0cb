"""Arrow columns as the bytes of rows in the online store, without a Python object for each number.

A column becomes its cells one after the other, each after its size (`feast_engine.guard.sized`),
and the cells' lengths; columns are then interleaved into rows. A column of texts or lists becomes
two: what stands before a text or the items of a list, and these themselves. The cells are those of
`feast_engine.layout`, which a test holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError
from contracts.features import DType
from contracts.tables import EVENT_TIMESTAMP
from feast_engine.guard import Rows
from feast_engine.layout import VERSION, ViewLayout, varint_digits

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
_FLOAT_TAG, _INT_TAG, _SECONDS_TAG, _NANOS_TAG = 0x35, 0x20, 0x08, 0x10
_TEXT_TAG, _TEXTS_TAG, _NUMBERS_TAG, _INNER_TAG = 0x12, 0x62, 0x72, 0x0A
_DIGITS = 10
_SIZE_DIGITS = 5
"""Of a size as a varint: a column holds less than 2^31 bytes."""
_LONG = 255
"""From here on a cell's size takes five bytes."""
_SECOND = 1_000_000
"""In microseconds."""


@dataclass(frozen=True)
class Cells:
    """raw: all cells of a column one after the other; sizes: the length of each, its size byte
    included; even: the length that all have, 0 where they differ."""

    raw: Bytes
    sizes: Numbers
    even: int


def encode_batch(layout: ViewLayout, batch: Any, life: int | None) -> Rows:
    """A pyarrow.RecordBatch (or Table) with the view's key, `event_timestamp` and features.

    With a column `session_version`, rows of a session are of these versions (`feast_engine.guard`).
    UsageError where a column is not there, cannot be cast to its type, or a row has no key or no
    time.
    """
    cells = [encode_times(_column(layout, batch, EVENT_TIMESTAMP, "timestamp"))]
    for name, dtype in layout.types.items():
        cells += _encode(dtype, _column(layout, batch, name, dtype.value))
    version = layout.version if VERSION in batch.schema.names else b""
    if version:
        cells += _encode(DType.int64, _column(layout, batch, VERSION, "int64"))
    raw, ends = interleave(cells)
    [join_key] = layout.view.join_keys
    return Rows(
        names=[layout.timestamp, *layout.fields.values()],
        keys=layout.keys(_column(layout, batch, join_key, "string").to_pylist()),
        cells=raw,
        ends=ends,
        life=life,
        version=version,
    )


def _column(layout: ViewLayout, batch: Any, name: str, kind: str) -> Any:
    """The column as one array of its type."""
    import pyarrow as pa

    types = {
        "timestamp": pa.timestamp("us", "UTC"),
        "float32": pa.float32(),
        "int64": pa.int64(),
        "string": pa.string(),
        "list<int64>": pa.list_(pa.int64()),
        "list<string>": pa.list_(pa.string()),
    }
    if name not in batch.schema.names:
        raise UsageError(f"the view {layout.view.name!r} needs the column {name!r}")
    column = batch.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    required = name == EVENT_TIMESTAMP or name in layout.view.join_keys
    if required and column.null_count:
        raise UsageError(f"the view {layout.view.name!r}: a row has no {name}")
    try:
        # times may lose nanoseconds, and doubles what a float cannot hold, as Feast's own writer does
        return (
            column if column.type == types[kind] else column.cast(types[kind], safe=kind == "int64")
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"the view {layout.view.name!r}: {name} is {column.type}, expected {kind}: {error}"
        ) from None


def _encode(dtype: DType, column: Any) -> list[Cells]:
    if dtype is DType.float32:
        return [encode_floats(column.to_numpy(zero_copy_only=False))]
    if dtype is DType.int64:
        return [encode_ints(column)]
    present = column.is_valid().to_numpy(zero_copy_only=False)
    if dtype is DType.string:
        raw, sizes = _texts(column)
        return [_heads(sizes, present, (_TEXT_TAG,)), Cells(raw, sizes, 0)]
    return _encode_lists(dtype, column, present)


def _encode_lists(dtype: DType, column: Any, present: npt.NDArray[np.bool_]) -> list[Cells]:
    """All items of all lists are encoded as one; each list takes its part of the bytes."""
    import pyarrow.compute as pc

    items = column.flatten()
    if items.null_count:
        raise UsageError(f"expected values of {dtype}, got a list with a null")
    if dtype is DType.list_int64:
        raw, used = _varints(items.to_numpy())
    else:
        texts, lengths = _texts(items)
        heads = _inner_heads(lengths)
        raw, used = _woven([heads, Cells(texts, lengths, 0)])[0], heads.sizes + lengths
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    sizes = np.diff(_from_zero(used)[_from_zero(counts)])
    # numbers lie in a message of their own within the list's
    tags = (_NUMBERS_TAG, _INNER_TAG) if dtype is DType.list_int64 else (_TEXTS_TAG,)
    return [_heads(sizes, present, tags), Cells(raw, sizes, 0)]


def _from_zero(sizes: Numbers) -> Numbers:
    """Where each begins, and the last one's end."""
    bounds: Numbers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return bounds


def _varints(numbers: Numbers) -> tuple[Bytes, Numbers]:
    if len(numbers) and numbers.min() >= 0 and numbers.max() < 0x80:
        return numbers.astype(np.uint8), np.ones(len(numbers), np.int64)
    digits, used = varint_digits(numbers)
    return digits[np.arange(_DIGITS) < used[:, None]], used


def _texts(column: Any) -> tuple[Bytes, Numbers]:
    """The texts one after the other in UTF-8, and the bytes of each; of a null none."""
    if column.null_count:
        column = column.fill_null("")
    _, bounds, raw = column.buffers()
    if not len(column):
        return np.empty(0, np.uint8), np.empty(0, np.int64)
    ends = np.frombuffer(bounds, np.int32)[column.offset : column.offset + len(column) + 1]
    texts = np.frombuffer(raw, np.uint8) if raw is not None else np.empty(0, np.uint8)
    return texts[ends[0] : ends[-1]], np.diff(ends).astype(np.int64)


def _inner_heads(sizes: Numbers) -> Cells:
    """What stands before each text of a list."""
    table = _Table(len(sizes))
    table.add_byte(_INNER_TAG)
    table.add_varint(sizes)
    return table.cells()


def _heads(sizes: Numbers, present: npt.NDArray[np.bool_], tags: tuple[int, ...]) -> Cells:
    """What stands before bodies of these sizes, the cell's size first. Of two tags the second is
    of the message within, which is left out with an empty body."""
    inner, outer = tags[1:], tags[0]
    filled = sizes > 0
    whole = sizes + (1 + _varint_sizes(sizes)) * filled if inner else sizes
    cell = (1 + _varint_sizes(whole) + whole) * present
    table = _Table(len(sizes))
    table.add_size(cell)
    table.add_byte(outer, present)
    table.add_varint(whole, present)
    for tag in inner:
        table.add_byte(tag, filled)
        table.add_varint(sizes, filled)
    return table.cells()


def _varint_sizes(numbers: Numbers) -> Numbers:
    """The bytes of varints of sizes."""
    used = np.ones(len(numbers), np.int64)
    for digit in range(1, _SIZE_DIGITS):
        more = numbers >> (7 * digit) > 0
        if not more.any():
            break
        used += more
    return used


class _Table:
    """Cells of several parts, built part by part: columns of bytes, and which of them count."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._columns: list[Bytes] = []
        self._kept: list[npt.NDArray[np.bool_]] = []

    def add_byte(self, byte: int | Bytes, kept: npt.NDArray[np.bool_] | None = None) -> None:
        self._columns.append(np.broadcast_to(np.asarray(byte, np.uint8), self._rows))
        self._kept.append(np.ones(self._rows, bool) if kept is None else kept)

    def add_varint(self, numbers: Numbers, kept: npt.NDArray[np.bool_] | None = None) -> None:
        """Of sizes."""
        used = _varint_sizes(numbers)
        for digit in range(int(used.max(initial=1))):
            more = np.where(used > digit + 1, 0x80, 0)
            byte = (numbers >> (7 * digit) & 0x7F | more).astype(np.uint8)
            self.add_byte(byte, (used > digit) & (True if kept is None else kept))

    def add_size(self, sizes: Numbers) -> None:
        """As `feast_engine.guard.sized` has it."""
        self.add_byte(np.minimum(sizes, _LONG).astype(np.uint8))
        long = sizes >= _LONG
        if long.any():
            for place in range(4):
                self.add_byte((sizes >> (8 * place) & 0xFF).astype(np.uint8), long)

    def cells(self) -> Cells:
        return _masked(np.stack(self._columns, axis=1), np.stack(self._kept, axis=1))


def encode_floats(values: npt.NDArray[np.float32]) -> Cells:
    """nan: missing, an empty cell."""
    table = np.empty((len(values), 6), np.uint8)
    table[:, 0], table[:, 1] = 5, _FLOAT_TAG
    table[:, 2:] = values.astype("<f4", copy=False).view(np.uint8).reshape(-1, 4)
    missing = np.isnan(values)
    if not missing.any():
        return Cells(table.reshape(-1), np.full(len(values), 6), 6)
    kept = np.ones(table.shape, bool)
    kept[missing, 1:] = False
    table[missing, 0] = 0
    return _masked(table, kept)


def encode_ints(column: Any) -> Cells:
    """Null: missing."""
    import pyarrow.compute as pc

    digits, used = varint_digits(pc.fill_null(column, 0).to_numpy(zero_copy_only=False))
    present = column.is_valid().to_numpy(zero_copy_only=False)
    table = np.empty((len(digits), 2 + _DIGITS), np.uint8)
    table[:, 0], table[:, 1], table[:, 2:] = np.where(present, 1 + used, 0), _INT_TAG, digits
    places = np.arange(1 + _DIGITS)
    kept = np.ones(table.shape, bool)
    kept[:, 1:] = (places < 1 + used[:, None]) & present[:, None]
    return _masked(table, kept)


def encode_times(column: Any) -> Cells:
    """Microseconds as google.protobuf.Timestamp; a part that is 0 is left out."""
    import pyarrow as pa

    seconds, rest = np.divmod(column.cast(pa.int64()).to_numpy(zero_copy_only=False), _SECOND)
    table = np.empty((len(seconds), 3 + 2 * _DIGITS), np.uint8)
    kept = np.ones(table.shape, bool)
    start = 1
    for tag, part in ((_SECONDS_TAG, seconds), (_NANOS_TAG, rest * 1000)):
        digits, used = varint_digits(part)
        stop = start + 1 + _DIGITS
        table[:, start], table[:, start + 1 : stop] = tag, digits
        kept[:, start:stop] = (np.arange(1 + _DIGITS) < 1 + used[:, None]) & (part != 0)[:, None]
        start = stop
    table[:, 0] = kept[:, 1:].sum(axis=1)
    return _masked(table, kept)


def _masked(table: Bytes, kept: npt.NDArray[np.bool_]) -> Cells:
    sizes = kept.sum(axis=1)
    even = int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 0
    return Cells(table[kept], sizes, even)


def interleave(columns: Sequence[Cells]) -> tuple[bytes, list[int]]:
    """The cells of the first row, of the second ...; and where each row ends."""
    raw, ends = _woven(columns)
    return raw.tobytes(), ends.tolist()


def _woven(columns: Sequence[Cells]) -> tuple[Bytes, Numbers]:
    rows = len(columns[0].sizes)
    if all(column.even for column in columns):
        parts = [column.raw.reshape(rows, column.even) for column in columns]
        width = sum(column.even for column in columns)
        return np.concatenate(parts, axis=1).reshape(-1), width * np.arange(1, rows + 1)
    sizes = np.stack([column.sizes for column in columns], axis=1)
    ends = np.cumsum(sizes).reshape(sizes.shape)
    out = np.empty(int(sizes.sum()), np.uint8)
    for place, column in enumerate(columns):
        starts = ends[:, place] - column.sizes
        if column.even:
            out[starts[:, None] + np.arange(column.even)] = column.raw.reshape(rows, column.even)
        else:
            moved = starts - (np.cumsum(column.sizes) - column.sizes)
            out[np.repeat(moved, column.sizes) + np.arange(len(column.raw))] = column.raw
    return out, ends[:, -1]
