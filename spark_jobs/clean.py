"""From lake rows to what the jobs read: every valid message, and each event once, with its visit.

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
    "partition": "int32",
    "reason": "string",
}  # fmt: skip
_FIELDS = tuple(Event.model_fields)
_EVENT = ("time", "key", "type", "item_id", "position", "device", "source")
"""`SessionEvent`'s fields, but for its place in Kafka."""
_PLACE = ("received", "partition", "offset")
_NO_CLOCK = 1 << 62
"""Stands for the receiver's clock where a row does not say when it was received."""


def parsed(lake_events: DataFrame) -> DataFrame:
    """Lake rows as `PARSED_COLUMNS`: `reason` null and codes for names, or the reason why not."""
    columns = [name for name in (*_FIELDS, *_PLACE) if name in lake_events.columns]
    return lake_events.select(*columns).mapInArrow(_parse, spark_schema(PARSED_COLUMNS))


def messages(events: DataFrame) -> DataFrame:
    """The valid ones of `parsed` events, repeats too, by session, and `known`: since when the
    message was known together with all that lie before it in its partition (milliseconds).

    Ordered by (known, partition, offset), a session's messages stand in the order in which they
    became known: of one partition by their offsets, and where the topic was given other partitions
    in between, by time.
    """
    valid = events.where(F.col("reason").isNull()).repartition("session_id")
    so_far = Window.partitionBy("session_id", "partition").orderBy("offset", "received")
    return valid.withColumn("known", F.max("received").over(so_far)).drop("reason", "visit")


def clean(sent: DataFrame) -> DataFrame:
    """`Offline.events_clean` of `messages`, in the order of (session, time, event).

    An event that came twice counts as `contracts.session.fold` counts it: of the same id in a
    session the latest, and of the same event told twice the place where it was told first.
    """
    fields = [F.coalesce(name, F.lit("")) if name == "item_id" else F.col(name) for name in _EVENT]
    latest = [field.desc() for field in fields]
    once = _first(sent, *latest, "offset", "known").withColumn("received", F.col("known"))
    return with_visits(once).orderBy("session_id", "time", "key")


def first_known(sent: DataFrame) -> DataFrame:
    """Of `messages` each event once, as it was told first: what came later can change nothing."""
    return _first(sent, "received", "partition", "offset")


def _first(sent: DataFrame, *order: Column | str) -> DataFrame:
    same = Window.partitionBy("session_id", "event_id").orderBy(*order)
    return sent.withColumn("_copy", F.row_number().over(same)).where("_copy = 1").drop("_copy")


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


def _parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(PARSED_COLUMNS)
    for batch in batches:
        yield pa.RecordBatch.from_pylist([parse_row(row) for row in batch.to_pylist()], schema)


def parse_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A lake row as `PARSED_COLUMNS`; of a refused one only `received` and `reason`.

    A row that does not say when it became known counts as known since its own time.
    """
    received = row.get("received")
    given = {name: row[name] for name in _FIELDS if row.get(name) is not None}
    try:
        event = parse_event(given, _NO_CLOCK if received is None else received)
    except InvalidEvent as error:
        return {"received": received, "reason": error.reason}
    codes = SessionEvent.of(event, _known_or(row.get("offset"), -1))
    return {
        **event.model_dump(
            include={"session_id", "event_id", "time", "item_id", "price", "request_id"}
        ),
        "key": codes.key,
        "type": codes.type,
        "position": codes.position,
        "device": codes.device,
        "source": codes.source,
        "offset": codes.offset,
        "received": _known_or(received, event.time),
        "partition": _known_or(row.get("partition"), -1),
    }


def _known_or(value: int | None, other: int) -> int:
    return other if value is None else value
