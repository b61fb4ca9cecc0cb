"""What the jobs left in the offline store: events, queries and the windows that part them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from contracts.errors import UsageError
from contracts.events import INTEREST_TYPES
from contracts.settings import Settings
from contracts.tables import OFFLINE_COLUMNS, Offline
from contracts.windows import WANTED_QUERIES, Windows, bounds

if TYPE_CHECKING:
    import pyarrow as pa

REBUILD = "write them first: ./nextclick demo does, or the jobs of spark_jobs"


class Query(NamedTuple):
    """A row of the table `queries`: what had been visited by `moment`, what came next, and what
    became of that (`contracts.tables.LABEL_KINDS`)."""

    visit: str
    session_id: str
    moment: int
    visited: tuple[str, ...]
    label: str
    label_time: int
    kind: str = "click"


def windows(settings: Settings, wanted: int = WANTED_QUERIES) -> Windows:
    """The windows of the shop's history, with label windows that hold `wanted` queries together."""
    import pyarrow.compute as pc

    times = read(settings, Offline.events_clean, ["time", "received"])
    if not len(times):
        raise UsageError(f"{settings.offline}/{Offline.events_clean} holds no event: import some")
    known = pc.max_element_wise(times["time"], times["received"])
    asked = read(settings, Offline.queries, ["moment", "label_time"])
    moments, labels = asked["moment"].to_numpy(), asked["label_time"].to_numpy()

    def queries(start: int, end: int) -> int:
        return int(np.count_nonzero((moments >= start) & (labels < end)))

    first, _ = bounds(times["time"].to_numpy())
    return Windows.of(first, pc.max(known).as_py(), queries, wanted)


def clicks(settings: Settings, before: int) -> pa.Table:
    """Columns visit, time, item_id of every event of interest that was known before a moment
    (milliseconds)."""
    import pyarrow.dataset as ds

    kinds = sorted(int(kind) for kind in INTEREST_TYPES)
    known = (ds.field("time") < before) & (ds.field("received") < before)
    condition = known & ds.field("type").isin(kinds)
    return read(settings, Offline.events_clean, ["visit", "time", "item_id"], condition)


def queries(settings: Settings, start: int, end: int) -> list[Query]:
    """The queries that were asked and answered within [start, end), by moment."""
    import pyarrow.dataset as ds

    condition = (ds.field("moment") >= start) & (ds.field("label_time") < end)
    table = read(settings, Offline.queries, list(Query._fields), condition)
    columns = [table[name].to_pylist() for name in Query._fields]
    rows = (Query(*row) for row in zip(*columns, strict=True))
    found = [row._replace(visited=tuple(row.visited)) for row in rows]
    return sorted(found, key=lambda query: (query.moment, query.visit))


def sample(found: Sequence[Query], count: int, seed: int) -> list[Query]:
    """At most `count` of them, drawn without replacement, in their order."""
    if len(found) <= count:
        return list(found)
    chosen = np.random.default_rng(seed).choice(len(found), size=count, replace=False)
    return [found[row] for row in np.sort(chosen)]


def read(settings: Settings, table: Offline, columns: list[str], condition: Any = None) -> pa.Table:
    """Columns of an offline table; UsageError when it is not there or another table."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    address = f"{settings.offline}/{table}"
    try:
        found = ds.dataset(address, format="parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise UsageError(f"no table {table} at {address} ({error}): {REBUILD}") from None
    missing = set(columns) - set(found.schema.names)
    if missing:
        raise UsageError(
            f"{address} has the columns {found.schema.names}, expected"
            f" {list(OFFLINE_COLUMNS[table])}: {REBUILD}"
        )
    return found.to_table(columns=columns, filter=condition)
