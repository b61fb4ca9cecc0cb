"""From lake rows to `events_clean`: each valid event once, with its visit.

What is valid is `contracts.events.parse_event`'s to say, here as at the door: a row that it refuses
(a foreign writer, an older schema) is left out, counted by reason, and stays in the lake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import InvalidEvent
from contracts.events import Event, EventType, parse_event
from contracts.session import IDLE_MS, SessionEvent
from contracts.tables import OFFLINE_COLUMNS, Columns, Offline
from spark_jobs.tables import spark_schema
from spark_jobs.walk import arrow_schema

PARSED_COLUMNS: Columns = {
    **{name: kind for name, kind in OFFLINE_COLUMNS[Offline.events_clean].items() if name != "visit"},
    "received": "int64",
    "reason": "string",
}  # fmt: skip
_FIELDS = tuple(Event.model_fields)
_NO_CLOCK = 1 << 62
"""Stands for the receiver's clock where a row does not say when it was received."""


def parsed(lake_events: DataFrame) -> DataFrame:
    """Lake rows as `PARSED_COLUMNS`: `reason` null and codes for names, or the reason why not."""
    columns = [name for name in (*_FIELDS, "received") if name in lake_events.columns]
    return lake_events.select(*columns).mapInArrow(_parse, spark_schema(PARSED_COLUMNS))


def clean(events: DataFrame) -> DataFrame:
    """`Offline.events_clean` of `parsed` events, in the order of (session, time, event).

    An event that came twice counts as `contracts.session.fold` counts it: of the same id in a
    session the earliest.
    """
    valid = events.where(F.col("reason").isNull()).repartition("session_id")
    return with_visits(_once(valid)).orderBy("session_id", "time", "key")


def count_reasons(events: DataFrame) -> dict[str | None, int]:
    """Rows of `parsed` events by the reason why they are refused; None: valid."""
    return {row["reason"]: row["count"] for row in events.groupBy("reason").count().collect()}


def with_visits(events: DataFrame) -> DataFrame:
    """Adds `visit`, by the rule of `contracts.session.visit`: a pause of over 30 minutes begins a
    new one, and a heartbeat neither begins nor prolongs one."""
    in_order = Window.partitionBy("session_id").orderBy("time", "key")
    acted = F.when(F.col("type") != int(EventType.heartbeat), F.col("time"))
    before = in_order.rowsBetween(Window.unboundedPreceding, -1)
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    pause = acted - F.last(acted, ignorenulls=True).over(before)
    begins = F.coalesce((pause > IDLE_MS).cast("int"), F.lit(0))
    numbered = events.withColumn("_begins", begins)
    numbered = numbered.withColumn("_visit", F.sum("_begins").over(so_far) + 1)
    return numbered.withColumn("visit", _visit_name(F.col("_visit"))).drop("_begins", "_visit")


def _visit_name(number: Column) -> Column:
    session = F.col("session_id")
    return F.when(number == 1, session).otherwise(F.concat_ws("~", session, number))


def _once(events: DataFrame) -> DataFrame:
    same = Window.partitionBy("session_id", "event_id")
    fields = (
        F.coalesce("item_id", F.lit("")) if f == "item" else F.col(f) for f in SessionEvent._fields
    )
    ranked = events.withColumn("_copy", F.row_number().over(same.orderBy(*fields, "received")))
    return ranked.where("_copy = 1").drop("_copy")


def _parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(PARSED_COLUMNS)
    for batch in batches:
        yield pa.RecordBatch.from_pylist([parse_row(row) for row in batch.to_pylist()], schema)


def parse_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A lake row as `PARSED_COLUMNS`; of a refused one only `received` and `reason`."""
    received = row.get("received")
    given = {name: row[name] for name in _FIELDS if row.get(name) is not None}
    try:
        event = parse_event(given, _NO_CLOCK if received is None else received)
    except InvalidEvent as error:
        return {"received": received, "reason": error.reason}
    codes = SessionEvent.of(event)
    return {
        **event.model_dump(
            include={"session_id", "event_id", "time", "item_id", "price", "request_id"}
        ),
        "key": codes.key,
        "type": codes.type,
        "position": codes.position,
        "device": codes.device,
        "source": codes.source,
        "received": received,
    }
