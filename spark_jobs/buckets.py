"""What is counted of items and categories in steps of 5 minutes: what trends are made from.

A fact counts when `contracts.known.counted_at` says, so a bucket is complete once everything is
seen that was known until `LATENESS` after its end, and is never corrected. The batch job and the
stream make buckets with these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.events import CLICK_TYPES, EventType
from contracts.features import TREND_STEP
from contracts.item_features import MEASURES
from contracts.known import LATENESS_MS
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP

STEP_MS = TREND_STEP // timedelta(milliseconds=1)
ITEM, CATEGORY = "item", "category"
"""Entities that are counted: what `entity` of a bucket says."""


def counted(time: Column, known: Column) -> Column:
    """`contracts.known.counted_at` for columns; what does not say when it became known was at once."""
    received = F.coalesce(known, time)
    return F.least(F.greatest(time, received - LATENESS_MS), received)


def bucket_end(at: Column) -> Column:
    """The end of the bucket that a moment lies in: [end - 5 minutes, end). All in milliseconds."""
    return at - F.pmod(at, F.lit(STEP_MS)) + STEP_MS


def facts(events: DataFrame, impressions: DataFrame) -> DataFrame:
    """(item_id, at: when it counts, a 0 or 1 for each of `MEASURES`), where one is 1.

    events: each once, with the columns of `Offline.events_clean`. impressions: the lake's table; an
    answer that stands there twice counts once.
    """
    at = counted(F.col("time"), F.col("received"))
    answers = _answers(impressions).withColumn("at", at)
    return event_facts(events.withColumn("at", at)).unionByName(impression_facts(answers))


def _answers(impressions: DataFrame) -> DataFrame:
    first = F.min(F.struct("received", "partition", "offset", "time", "items")).alias("first")
    return impressions.groupBy("request_id").agg(first).select("request_id", "first.*")


def event_facts(events: DataFrame) -> DataFrame:
    """Facts of events: (type, item_id, request_id, at)."""
    viewed = F.col("type").isin([int(kind) for kind in CLICK_TYPES])
    return _facts(
        events,
        {
            "views": viewed,
            "list_views": viewed & F.col("request_id").isNotNull(),
            "carts": F.col("type") == int(EventType.add_to_cart),
            "purchases": F.col("type") == int(EventType.checkout),
        },
    )


def impression_facts(answers: DataFrame) -> DataFrame:
    """Facts of answers: (items, at), one an item that was shown."""
    shown = answers.select("at", F.explode("items").alias("item_id"))
    return _facts(shown, {"impressions": F.lit(True)})


def _facts(frame: DataFrame, holds: Mapping[str, Column]) -> DataFrame:
    columns = [holds.get(name, F.lit(False)).cast("int").alias(name) for name in MEASURES]
    counts = frame.where(F.length("item_id") > 0).select("item_id", "at", *columns)
    return counts.where(F.greatest(*MEASURES) == 1)


def item_buckets(facts: DataFrame) -> DataFrame:
    """Rows of `Offline.buckets` for items."""
    end = bucket_end(F.col("at")).alias("end")
    return facts.groupBy(F.col("item_id").alias("key"), end).agg(*_sums()).select(*_row(ITEM))


def category_buckets(items: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Rows of `Offline.buckets` for categories: of items, each in the category that it was known to
    have at the bucket's end (`Offline.item_catalogue`); what has none is counted in none."""
    return (
        _with_category(items, catalogue).groupBy("key", "end").agg(*_sums()).select(*_row(CATEGORY))
    )


def _with_category(items: DataFrame, catalogue: DataFrame) -> DataFrame:
    said = catalogue.where(F.col("category").isNotNull()).select(
        F.col("item_id").alias("key"),
        F.unix_millis(CREATED_TIMESTAMP).alias("end"),
        F.struct(F.unix_millis(EVENT_TIMESTAMP), "category").alias("said"),
    )
    # a change that was known at the end itself comes before the bucket
    rows = said.withColumn("_place", F.lit(0)).unionByName(
        items.withColumn("_place", F.lit(1)), allowMissingColumns=True
    )
    until_then = Window.partitionBy("key").orderBy("end", "_place")
    newest = F.max("said").over(until_then.rowsBetween(Window.unboundedPreceding, 0))
    named = rows.withColumn("_category", newest["category"]).where("_place = 1")
    return named.where("_category is not null").withColumn("key", F.col("_category"))


def _sums() -> list[Column]:
    return [F.sum(F.col(name).cast("long")).alias(name) for name in MEASURES]


def _row(entity: str) -> list[Column]:
    return [F.lit(entity).alias("entity"), F.col("key"), F.col("end"), *map(F.col, MEASURES)]
