"""Runs a Python function over the events of each session, in order, whatever their number.

Spark's applyInPandas calls Python once a session and pays about a millisecond for each: half a
minute for 28,000 sessions of four events. Here each partition is one stream of rows sorted by
session, and Python tells the sessions apart: bounded memory, one call a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame

from contracts.session import SessionEvent, SessionState, fold
from contracts.tables import OFFLINE_COLUMNS, Columns, Offline
from spark_jobs.tables import spark_schema

Row = dict[str, Any]
BATCH = 5000
"""Rows of a batch that goes back to Spark."""
_READ = (
    "session_id", "visit", "time", "key", "type", "item_id", "position", "device", "source",
)  # fmt: skip


class Moment(NamedTuple):
    """All events of a session that bear one time, and the state after them. Heartbeats alone
    change nothing, so they make no moment."""

    session: str
    visit: str
    time: int  # milliseconds
    events: tuple[SessionEvent, ...]
    state: SessionState


RowsOf = Callable[[Iterator[Moment]], Iterable[Row]]
"""From a session's moments, in order of time, to rows of an offline table."""


def over_sessions(events_clean: DataFrame, rows_of: RowsOf, table: Offline) -> DataFrame:
    """The offline table that `rows_of` makes of each session of `events_clean`."""
    columns = OFFLINE_COLUMNS[table]

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _batches(_session_rows(batches, rows_of), arrow_schema(columns))

    in_order = events_clean.repartition("session_id").sortWithinPartitions(
        "session_id", "time", "key"
    )
    return in_order.select(*_READ).mapInArrow(run, spark_schema(columns))


def moments(session: str, events: Iterable[tuple[str, SessionEvent]]) -> Iterator[Moment]:
    """The moments of a session. events: (visit, event), in order."""
    state = SessionState()
    for time, group in groupby(events, key=lambda pair: pair[1].time):
        visits, together = zip(*group, strict=True)
        before, state = state, fold(state, together)
        if state != before:
            yield Moment(session, visits[-1], time, together, state)


def _session_rows(batches: Iterator[pa.RecordBatch], rows_of: RowsOf) -> Iterator[Row]:
    rows = (row for batch in batches for row in zip(*_lists(batch), strict=True))
    for session, group in groupby(rows, key=itemgetter(0)):
        yield from rows_of(moments(session, map(_event, group)))


def _lists(batch: pa.RecordBatch) -> list[list[Any]]:
    return [batch.column(name).to_pylist() for name in _READ]


def _event(row: tuple[Any, ...]) -> tuple[str, SessionEvent]:
    _, visit, time, key, kind, item, position, device, source = row
    return visit, SessionEvent(time, key, kind, item or "", position, device, source)


def _batches(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, BATCH)):
        yield pa.RecordBatch.from_pylist(chunk, schema=schema)


def arrow_schema(columns: Columns) -> pa.Schema:
    """The columns as Arrow takes them from Python; timestamps in microseconds, UTC."""
    return pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])


def _arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("list<"):
        return pa.list_(_arrow_type(kind[5:-1]))
    if kind == "timestamp":
        return pa.timestamp("us", tz="UTC")
    return pa.type_for_alias(kind)
