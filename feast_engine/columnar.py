"""Arrow columns as the bytes of rows in the online store, without a Python object for each number.

A column becomes its cells one after the other, each after its size (`feast_engine.guard.sized`),
and the cells' lengths; columns are then interleaved into rows. The cells are those of
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
from feast_engine.guard import Rows, sized
from feast_engine.layout import ViewLayout, encode_column, varint_digits

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
_FLOAT_TAG, _INT_TAG, _SECONDS_TAG, _NANOS_TAG = 0x35, 0x20, 0x08, 0x10
_DIGITS = 10
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

    UsageError where a column is not there, cannot be cast to its type, or a row has no key or no
    time.
    """
    cells = [encode_times(_column(layout, batch, EVENT_TIMESTAMP, "timestamp"))]
    for name, dtype in layout.types.items():
        cells.append(_encode(dtype, _column(layout, batch, name, dtype.value)))
    raw, ends = interleave(cells)
    [join_key] = layout.view.join_keys
    return Rows(
        names=[layout.timestamp, *layout.fields.values()],
        keys=layout.keys(_column(layout, batch, join_key, "string").to_pylist()),
        cells=raw,
        ends=ends,
        life=life,
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


def _encode(dtype: DType, column: Any) -> Cells:
    if dtype is DType.float32:
        return encode_floats(column.to_numpy(zero_copy_only=False))
    if dtype is DType.int64:
        return encode_ints(column)
    return _joined([sized(cell) for cell in encode_column(dtype, column.to_pylist())])


def _joined(cells: Sequence[bytes]) -> Cells:
    sizes = np.fromiter(map(len, cells), np.int64, len(cells))
    return Cells(np.frombuffer(b"".join(cells), np.uint8), sizes, 0)


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
    rows = len(columns[0].sizes)
    if all(column.even for column in columns):
        parts = [column.raw.reshape(rows, column.even) for column in columns]
        width = sum(column.even for column in columns)
        return np.concatenate(parts, axis=1).tobytes(), list(
            range(width, width * (rows + 1), width)
        )
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
    return out.tobytes(), ends[:, -1].tolist()
