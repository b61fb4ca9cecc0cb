"""The table of item features over windows of days: `contracts.item_features`, by Spark."""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.features import of_view
from contracts.item_features import ITEM_FEATURES, check_declared
from contracts.tables import ACTIVITY_DELAY, CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.day_counts import count_days
from spark_jobs.item_days import DAY_MS, ItemDays, windows
from spark_jobs.tables import conform, timestamp


def item_activity(first_known: DataFrame, impressions: DataFrame, now: int) -> DataFrame:
    """`Offline.item_activity`: a row an item and day (UTC) of which all was known by `now`
    (milliseconds); first_known: see `clean.first_known`.

    Its event time is the end of the day, its created time `ACTIVITY_DELAY` later. The day under
    way has no row: its windows would hold part of a day, a number that the ranker never saw in
    training. UsageError when declared features and functions differ.
    """
    declared = [feature.name for feature in of_view("item_activity")]
    check_declared(declared, ITEM_FEATURES)
    days = ItemDays()
    columns = [ITEM_FEATURES[name](days).alias(name) for name in declared]
    delay = ACTIVITY_DELAY // timedelta(milliseconds=1)
    midnight = (now - delay) // DAY_MS * DAY_MS
    rows = windows(count_days(first_known, impressions, midnight), days, midnight)
    known = timestamp(F.col("end")).alias(EVENT_TIMESTAMP)
    created = timestamp(F.col("end") + delay).alias(CREATED_TIMESTAMP)
    return conform(rows.select("item_id", known, created, *columns), Offline.item_activity)
