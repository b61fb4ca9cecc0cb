"""Trends: what happened around an item or a category in the last hour, day and week.

A row holds from a moment of the grid of 5 minutes until the next row of its key. There is one
where a window's value can change: at the end of a bucket that holds something, and when that
bucket leaves each window. So the newest row at any moment has the values of that moment.
"""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.features import TREND_WINDOWS, VIEWS
from contracts.item_features import MEASURES
from contracts.known import LATENESS
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.buckets import CATEGORY, ITEM, STEP_MS
from spark_jobs.tables import conform, timestamp

WINDOWS_DELAY = LATENESS + timedelta(seconds=45)
"""From the end of a window to its row being known: what comes late is waited for, then the stream
needs some seconds (`python -m benchmarks stream`). A batch run gives its rows the created time
that they would have had."""
DELAY_MS = WINDOWS_DELAY // timedelta(milliseconds=1)
WINDOWS_MS = {name: size // timedelta(milliseconds=1) for name, size in TREND_WINDOWS.items()}
LONGEST_MS = max(WINDOWS_MS.values())
TABLES = {ITEM: Offline.item_windows, CATEGORY: Offline.category_windows}
"""Where the rows of an entity belong."""
SMOOTHING = 20
"""Impressions that are added to a click rate's, so that a single click does not make it 1."""


def complete_until(now: int) -> int:
    """The last moment of the grid of which rows are known by `now`. All in milliseconds."""
    return (now - DELAY_MS) // STEP_MS * STEP_MS


def changes(buckets: DataFrame, after: int, until: int) -> DataFrame:
    """(entity, key, at, counts by measure and window: views_1h ...), at each moment `at` in
    (after, until] at which a bucket enters or leaves a window.

    `buckets`: rows of `Offline.buckets`, each (entity, key, end) once, of all that ended in
    (after - 7 days, until]; others are not looked at.
    """
    inside = buckets.where((F.col("end") > after - LONGEST_MS) & (F.col("end") <= until))
    moments = _moments(inside).where(F.col("at") <= until)
    counts = {
        f"{measure}_{name}": _running(measure) - _running(measure, size)
        for measure in MEASURES
        for name, size in WINDOWS_MS.items()
    }
    named = [column.alias(name) for name, column in counts.items()]
    return moments.select("entity", "key", "at", *named).where(F.col("at") > after)


def touched(buckets: DataFrame, after: int, until: int) -> DataFrame:
    """Of `buckets` those whose keys have changes in (after, until]: a few, where that is short."""
    changed = F.lit(False)
    for delay in (0, *WINDOWS_MS.values()):
        changed |= (F.col("end") + delay).between(after + 1, until)
    keys = buckets.where(changed).select("entity", "key").distinct()
    return buckets.join(keys, ["entity", "key"], "left_semi")


def _moments(buckets: DataFrame) -> DataFrame:
    """(entity, key, at, what enters at that moment by measure: 0 where a bucket only leaves)."""
    delays = F.array(*(F.lit(delay).cast("long") for delay in (0, *WINDOWS_MS.values())))
    spread = buckets.withColumn("_delay", F.explode(delays))
    enters = F.col("_delay") == 0
    sums = [F.sum(F.when(enters, F.col(name)).otherwise(0)).alias(name) for name in MEASURES]
    at = (F.col("end") + F.col("_delay")).alias("at")
    return spread.groupBy("entity", "key", at).agg(*sums)


def _running(measure: str, ago: int = 0) -> Column:
    """The sum up to so many milliseconds ago. A window is the difference of two: each row costs
    the same however much the window holds."""
    in_order = Window.partitionBy("entity", "key").orderBy("at")
    return F.coalesce(
        F.sum(measure).over(in_order.rangeBetween(Window.unboundedPreceding, -ago)), F.lit(0)
    )


def window_rows(changes: DataFrame, entity: str, created: Column) -> DataFrame:
    """`changes` of an entity as rows of its table. created: when each became known, a timestamp."""
    table = TABLES[entity]
    (join_key,) = VIEWS[table.value].join_keys
    rates = {
        f"click_rate_{name}": F.col(f"list_views_{name}")
        / (F.col(f"impressions_{name}") + SMOOTHING)
        for name in WINDOWS_MS
    }
    counts = {
        f"{measure}_{name}": F.col(f"{measure}_{name}")
        for measure in MEASURES
        for name in WINDOWS_MS
    }
    values = [column.alias(f"{entity}_{name}") for name, column in {**counts, **rates}.items()]
    rows = changes.where(F.col("entity") == entity).select(
        F.col("key").alias(join_key),
        timestamp(F.col("at")).alias(EVENT_TIMESTAMP),
        created.alias(CREATED_TIMESTAMP),
        *values,
    )
    return conform(rows, table)


def usual_created() -> Column:
    """Created time of `changes` that a batch run computes."""
    return timestamp(F.col("at") + DELAY_MS)
