"""Daily counts of items: what windows of days are made from.

A fact counts when `contracts.known.counted_at` says: what comes late counts when it becomes known,
so the counts of a day are complete once all is seen that was known until `LATENESS` after its end,
and are never corrected.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.item_features import MEASURES
from spark_jobs.buckets import facts
from spark_jobs.item_days import DAY_MS


def count_days(first_known: DataFrame, impressions: DataFrame, midnight: int) -> DataFrame:
    """(item_id, day since 1970, each of `MEASURES`, its first_ and last_ time) where any is not 0.

    first_known: see `clean.first_known`. impressions: the lake's table; an answer that stands there
    twice counts once, as it was known first. Only what counts before `midnight` (milliseconds) is
    in it.
    """
    counted = facts(first_known, impressions).where(F.col("at").between(0, midnight - 1))
    day = F.floor(F.col("at") / DAY_MS).cast("long").alias("day")
    sums = [F.sum(F.col(measure).cast("long")).alias(measure) for measure in MEASURES]
    first = [F.min(_time_of(measure)).alias(f"first_{measure}") for measure in MEASURES]
    last = [F.max(_time_of(measure)).alias(f"last_{measure}") for measure in MEASURES]
    return counted.groupBy("item_id", day).agg(*sums, *first, *last)


def _time_of(measure: str) -> Column:
    return F.when(F.col(measure) == 1, F.col("at"))
