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

from contracts.session import SessionEvent
from contracts.tables import OFFLINE_COLUMNS, Columns, Offline
from spark_jobs.tables import spark_schema

Row = dict[str, Any]
BATCH = 5000
"""Rows of a batch that goes back to Spark."""
_EVENT = tuple("item_id" if name == "item" else name for name in SessionEvent._fields)


class Told(NamedTuple):
    """An event of a session, and when it became known (milliseconds). `visit`: its name, where
    it was asked for."""

    known: int
    event: SessionEvent
    visit: str = ""


RowsOf = Callable[[str, Iterator[Told]], Iterable[Row]]
"""From a session's name and what was told of it, in order, to rows of an offline table."""


def over_sessions(
    frame: DataFrame, order: Iterable[str], rows_of: RowsOf, table: Offline
) -> DataFrame:
    """The offline table that `rows_of` makes of each session. frame: an event a row with the
    columns of `SessionEvent`, `session_id`, `received` and, if it has them, `visit`; `order`: its
    columns by which a session's events are sorted."""
    columns = OFFLINE_COLUMNS[table]

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return row_batches(_session_rows(batches, rows_of), arrow_schema(columns))

    names = ["session_id", "received", *_EVENT, *(["visit"] if "visit" in frame.columns else [])]
    in_order = frame.repartition("session_id").sortWithinPartitions("session_id", *order)
    return in_order.select(*names).mapInArrow(run, spark_schema(columns))


def _session_rows(batches: Iterator[pa.RecordBatch], rows_of: RowsOf) -> Iterator[Row]:
    rows = (row for batch in batches for row in zip(*_lists(batch), strict=True))
    for session, group in groupby(rows, key=itemgetter(0)):
        yield from rows_of(session, map(_told, group))


def _lists(batch: pa.RecordBatch) -> list[list[Any]]:
    return [column.to_pylist() for column in batch.columns]


def _told(row: tuple[Any, ...]) -> Told:
    _, known, time, key, kind, item, position, device, source, offset, *visit = row
    event = SessionEvent(time, key, kind, item or "", position, device, source, offset)
    return Told(known, event, *visit)


def row_batches(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in batches that Spark takes back."""
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
