"""What an index is built from: events, catalogue and item vectors known before a cut-off, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from candidate_service.encoder import read_weights
from contracts.errors import UsageError
from contracts.events import CLICK_TYPES, INTEREST_TYPES
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Tabular: TypeAlias = pa.Table | Path | str
"""A table, or where its Parquet files lie (a file, a folder or an s3:// address)."""

_EVENT_COLUMNS = ("visit", "time", "received", "key", "type", "item_id")
_VECTOR_COLUMNS = ("item_id", "vector")
_CATALOGUE_COLUMNS = (
    "item_id", EVENT_TIMESTAMP, CREATED_TIMESTAMP, "category_id", "brand_id", "price",
)  # fmt: skip


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of some items: `items` int32 [m] ascending, `values` float32 [m, dimensions].
    encoder: the arrays of `candidate_service.encoder`; empty without one."""

    items: Ints
    values: Floats
    encoder: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """What the shop says of the items, [items] each: category and brand are codes, -1 unknown;
    log_price is nan where there is none."""

    category: Ints
    brand: Ints
    log_price: Floats


@dataclass(frozen=True)
class History:
    """Events of interest before the cut-off, in the order of (visit, time, event).

    ids: the item ids, sorted; an item's place here is its number everywhere in an index. An item
    that the catalogue alone names has one too.
    visit, item, time, click: one entry an event; `click` says whether its type is predicted.
    """

    cutoff_ms: int
    ids: tuple[str, ...]
    visit: Ints
    item: Ints
    time: npt.NDArray[np.int64]
    click: npt.NDArray[np.bool_]
    vectors: Vectors | None
    catalogue: Catalogue | None = None

    @property
    def items(self) -> int:
        return len(self.ids)

    def visits(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Where each visit's events begin, and one end more; the days from its last event to the
        cut-off."""
        if not len(self.visit):
            return np.zeros(1, np.int64), np.empty(0)
        first = np.flatnonzero(np.diff(self.visit, prepend=-1))
        starts = np.append(first, len(self.visit)).astype(np.int64)
        return starts, self.age_days()[starts[1:] - 1]

    def age_days(self) -> npt.NDArray[np.float64]:
        """Days from each event to the cut-off."""
        return (self.cutoff_ms - self.time) / 86_400_000.0

    def without_repeats(self) -> npt.NDArray[np.intp]:
        """Rows that are left when the same item in a row of a visit counts once (`items_of`)."""
        same = (self.visit[1:] == self.visit[:-1]) & (self.item[1:] == self.item[:-1])
        return np.flatnonzero(np.concatenate(([True], ~same))) if len(self.item) else _NO_ROWS


_NO_ROWS = np.empty(0, dtype=np.intp)


def read_history(
    events: Tabular, vectors: Tabular | None, cutoff_ms: int, catalogue: Tabular | None = None
) -> History:
    """Read `events_clean`, `item_vectors` and `item_catalogue` up to the cut-off.

    What happened or became known later, and vectors of items that neither an event nor the
    catalogue names, are left out. UsageError when a table has other columns than it should, or
    vectors of different lengths.
    """
    interest = [int(kind) for kind in INTEREST_TYPES]
    known = (
        (ds.field("time") < cutoff_ms)
        & (ds.field("received") < cutoff_ms)
        & ds.field("type").isin(interest)
        & ds.field("item_id").is_valid()
        & (ds.field("item_id") != "")
    )
    table = _read(events, _EVENT_COLUMNS, known, "events")
    visit, _ = _codes(table["visit"])
    known_items = None if catalogue is None else _newest_rows(catalogue, cutoff_ms)
    names = table["item_id"].cast(pa.large_string())
    if known_items is not None:
        names = pa.chunked_array([*names.chunks, *known_items["item_id"].chunks], pa.large_string())
    codes, ids = _codes(names)
    item = codes[: len(table)]
    time, key = (table[name].to_numpy() for name in ("time", "key"))
    order = np.lexsort((item, key, time, visit))
    clicks = pa.array([int(kind) for kind in CLICK_TYPES], table["type"].type)
    click = pc.is_in(table["type"], value_set=clicks).to_numpy()
    return History(
        cutoff_ms, ids, visit[order], item[order], time[order].astype(np.int64), click[order],
        None if vectors is None else _read_vectors(vectors, ids),
        None if known_items is None else _catalogue(known_items, codes[len(table) :], len(ids)),
    )  # fmt: skip


def _newest_rows(source: Tabular, cutoff_ms: int) -> pa.Table:
    """(item_id, category_id, brand_id, price): of each item what was last said of it and known
    before the cut-off."""
    moment = pa.scalar(cutoff_ms, pa.timestamp("ms", "UTC"))
    known = (
        (ds.field(EVENT_TIMESTAMP) < moment)
        & (ds.field(CREATED_TIMESTAMP) < moment)
        & (ds.field("item_id") != "")
    )
    table = _read(source, _CATALOGUE_COLUMNS, known, "the catalogue")
    keys = [(name, "ascending") for name in ("item_id", EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    table = table.sort_by(keys)
    names = table["item_id"].cast(pa.large_string()).combine_chunks()
    last = pc.not_equal(names[:-1], names[1:]).to_numpy(zero_copy_only=False) if len(names) else []
    rows = np.flatnonzero(np.append(last, True))[: len(names)]
    kept = table.take(pa.array(rows)).select(["item_id", "category_id", "brand_id", "price"])
    return kept.set_column(0, "item_id", kept["item_id"].cast(pa.large_string()))


def _catalogue(rows: pa.Table, numbers: Ints, items: int) -> Catalogue:
    price = np.full(items, np.nan, dtype=np.float32)
    told = rows["price"].to_numpy().astype(np.float64)
    price[numbers] = np.log(np.where(told > 0, told, np.nan))
    category, brand = (
        _dense(rows[name].fill_null(0).to_numpy(), numbers, items)
        for name in ("category_id", "brand_id")
    )
    return Catalogue(category, brand, price)


def _dense(values: npt.NDArray[np.int64], numbers: Ints, items: int) -> Ints:
    """Codes from 0 for the values, -1 for 0, which means unknown."""
    codes = np.full(items, -1, dtype=np.int32)
    distinct, place = np.unique(values, return_inverse=True)
    shift = int(len(distinct) > 0 and distinct[0] == 0)
    codes[numbers] = place - shift
    return codes


def _read(source: Tabular, columns: tuple[str, ...], rows: ds.Expression, what: str) -> pa.Table:
    try:
        dataset = (
            ds.dataset(source)
            if isinstance(source, pa.Table)
            else ds.dataset(str(source), format="parquet", partitioning=None)
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"no {what} to read at {source}: {error}") from None
    missing = set(columns) - set(dataset.schema.names)
    if missing:
        raise UsageError(
            f"{what} need the columns {', '.join(columns)}; found {', '.join(dataset.schema.names)}"
        )
    return dataset.to_table(columns=list(columns), filter=rows)


def _codes(column: pa.ChunkedArray) -> tuple[Ints, tuple[str, ...]]:
    """Each text's place among the sorted distinct texts, and these."""
    # large: an int32 offset ends at 2 GB of text
    texts = column.cast(pa.large_string()).combine_chunks()
    encoded = texts.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    codes: Ints = place[encoded.indices.to_numpy(zero_copy_only=False)]
    return codes, tuple(encoded.dictionary.take(pa.array(order)).to_pylist())


def _read_vectors(source: Tabular, ids: tuple[str, ...]) -> Vectors | None:
    """Vectors of the items `ids`, scaled to length 1; one without a direction is left out."""
    rows = ds.field("item_id").isin(pa.array(ids, pa.string())) & ds.field("vector").is_valid()
    table = _read(source, _VECTOR_COLUMNS, rows, "item vectors")
    if not len(table):
        return None
    lengths = pc.unique(pc.list_value_length(table["vector"])).to_pylist()
    if len(lengths) != 1:
        raise UsageError(f"item vectors of one length expected, found lengths {sorted(lengths)}")
    flat = pc.list_flatten(table["vector"]).to_numpy()
    values = flat.reshape(-1, lengths[0]).astype(np.float64)
    places = pc.index_in(table["item_id"], value_set=pa.array(ids, pa.string())).to_numpy()
    items, first = np.unique(places.astype(np.int32), return_index=True)
    norms = np.linalg.norm(values[first], axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    unit = values[first][usable] / norms[usable, None]
    if not usable.any():
        return None
    return Vectors(items[usable], unit.astype(np.float32), read_weights(source))
