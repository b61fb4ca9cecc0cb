"""The item features over windows of days, one function each, named as declared in
contracts/features.py.

To add one: declare it there, in the view `item_activity`, and write its function here. Nothing
else: the table's schema, Feast, training and serving follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import UsageError
from contracts.features import of_view
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.day_counts import count_days
from spark_jobs.item_days import DAY_MS, ItemDays, windows
from spark_jobs.tables import conform, timestamp

ACTIVITY_DELAY = timedelta(minutes=10)
"""From the end of a day to its row being known: by then all is known that counts before that end
(`contracts.known.LATENESS`), and the job that starts then finds it in the lake."""

ItemFeature = Callable[[ItemDays], Column]
ITEM_FEATURES: dict[str, ItemFeature] = {}
"""The functions below by name."""


def item_feature(function: ItemFeature) -> ItemFeature:
    """Registers the function of the feature of the same name."""
    ITEM_FEATURES[function.__name__] = function
    return function


@item_feature
def views_1d(days: ItemDays) -> Column:
    return days.total("views", 1)


@item_feature
def views_7d(days: ItemDays) -> Column:
    return days.total("views", 7)


@item_feature
def views_30d(days: ItemDays) -> Column:
    return days.total("views", 30)


@item_feature
def carts_30d(days: ItemDays) -> Column:
    return days.total("carts", 30)


@item_feature
def purchases_30d(days: ItemDays) -> Column:
    return days.total("purchases", 30)


@item_feature
def cart_rate_30d(days: ItemDays) -> Column:
    return days.total("carts", 30) / (days.total("views", 30) + 10)


@item_feature
def purchase_rate_30d(days: ItemDays) -> Column:
    return days.total("purchases", 30) / (days.total("views", 30) + 10)


@item_feature
def trend_7d(days: ItemDays) -> Column:
    return (days.total("views", 7) + 1) / (days.total("views", 30) / 4 + 1)


@item_feature
def days_since_seen(days: ItemDays) -> Column:
    return days.days_since_last("views")


@item_feature
def days_since_new(days: ItemDays) -> Column:
    # at most the longest window: beyond, it would tell the age of the lake, not of the item
    return F.least(days.days_since_first("views"), F.lit(30.0))


@item_feature
def impressions_7d(days: ItemDays) -> Column:
    return days.total("impressions", 7)


@item_feature
def click_rate_7d(days: ItemDays) -> Column:
    return days.total("list_views", 7) / (days.total("impressions", 7) + 20)


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


def check_declared(declared: Iterable[str], written: Iterable[str]) -> None:
    """UsageError unless both name the same features."""
    without = sorted(set(declared) - set(written))
    unknown = sorted(set(written) - set(declared))
    if without:
        raise UsageError(
            f"contracts/features.py declares {', '.join(without)} in item_activity, but "
            "spark_jobs/item_features.py has no function of that name: write one with @item_feature"
        )
    if unknown:
        raise UsageError(
            f"spark_jobs/item_features.py has {', '.join(unknown)}, which contracts/features.py "
            "does not declare in item_activity: declare it there with its meaning"
        )
