"""From Kafka's messages to the rows that the stream keeps, until their five minutes are complete."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import InvalidEvent
from contracts.events import BACKFILL_HEADER, Topic, parse_event, parse_impression, topic_name
from contracts.settings import Settings
from contracts.tables import Columns
from spark_jobs.buckets import event_facts, impression_facts
from spark_jobs.tables import spark_schema
from spark_jobs.walk import arrow_schema

MESSAGE_COLUMNS: Columns = {
    "id": "string",  # of the event within its session, or of the answer: tells repeats
    "type": "int32",  # code of EventType; null: an answer
    "items": "list<string>",
    "request_id": "string",
    "time": "int64",
    "received": "int64",
    "partition": "int32",
    "offset": "int64",
}
STORED_COLUMNS: Columns = {**MESSAGE_COLUMNS, "at": "int64"}


def kafka_messages(spark: SparkSession, settings: Settings, since: int) -> DataFrame:
    """The stream of both topics' messages; at its very first start from `since` (milliseconds)."""
    topics = [
        topic_name(settings.topic_prefix, topic) for topic in (Topic.events, Topic.impressions)
    ]
    options = {
        "kafka.bootstrap.servers": settings.kafka,
        "subscribe": ",".join(topics),
        "includeHeaders": "true",
        "maxOffsetsPerTrigger": str(settings.stream_messages),
        "startingTimestamp": str(since),
        "startingOffsetsByTimestampStrategy": "latest",  # of a partition without newer messages
    }
    return spark.readStream.format("kafka").options(**options).load()


def parsed_messages(messages: DataFrame, settings: Settings) -> DataFrame:
    """`MESSAGE_COLUMNS` of Kafka's valid messages but for those that tell of the past: these are
    the batch job's to count. What does not parse is the consumer's to report."""
    events = topic_name(settings.topic_prefix, Topic.events)
    past = F.exists("headers", lambda header: header["key"] == BACKFILL_HEADER)
    live = messages.where(~F.coalesce(past, F.lit(False)))
    columns = live.select(
        (F.col("topic") == events).alias("event"),
        "value",
        F.unix_millis("timestamp").alias("received"),
        "partition",
        "offset",
    )
    return columns.mapInArrow(_parse, spark_schema(MESSAGE_COLUMNS))


def _parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    schema = arrow_schema(MESSAGE_COLUMNS)
    for batch in batches:
        columns = (column.to_pylist() for column in batch.columns)
        found = (parse_message(*row) for row in zip(*columns, strict=True))
        yield pa.RecordBatch.from_pylist([row for row in found if row is not None], schema)


def parse_message(
    is_event: bool, value: bytes | None, received: int, partition: int, offset: int
) -> dict[str, Any] | None:
    """A message as `MESSAGE_COLUMNS`; None for one that is refused or names no item."""
    place = {"received": received, "partition": partition, "offset": offset}
    try:
        if is_event:
            event = parse_event(value or b"", received)
            if event.item_id is None:
                return None
            return {
                "id": _digest(event.session_id, event.event_id), "type": int(event.type),
                "items": [event.item_id], "request_id": event.request_id, "time": event.time,
                **place,
            }  # fmt: skip
        answer = parse_impression(value or b"", received)
    except InvalidEvent:
        return None
    return {"id": _digest(answer.request_id), "items": answer.items, "time": answer.time, **place}


def _digest(*parts: str) -> str:
    """No id holds a line's end, so no two ids make the same text."""
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def first_told(messages: DataFrame) -> DataFrame:
    """Of each id the message that was known first."""
    same = Window.partitionBy("id").orderBy("received", "partition", "offset")
    return messages.withColumn("_copy", F.row_number().over(same)).where("_copy = 1").drop("_copy")


def late() -> Column:
    """Whether a message counts later than it happened: it may have been told and counted before."""
    return F.col("at") > F.col("time")


def message_facts(messages: DataFrame) -> DataFrame:
    """Facts (`spark_jobs.buckets`) of rows of `STORED_COLUMNS`."""
    events = messages.where(F.col("type").isNotNull())
    answers = messages.where(F.col("type").isNull())
    items = events.withColumn("item_id", F.col("items")[0])
    return event_facts(items).unionByName(impression_facts(answers))
