"""The item features over windows of days, one function each, named as declared in
`contracts/features.py`.

To add one: declare it there, in the view `item_activity`, and write its function here. Nothing
else: the table's schema, Feast, training, serving and evaluation follow. A function says what it
is made of and not by what: Spark's columns for the offline table (`spark_jobs.item_days`), numpy's
arrays for an evaluation on a file (`training.frozen`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from contracts.errors import UsageError

MEASURES = ("views", "list_views", "carts", "purchases", "impressions")
"""What is counted of an item: views and clicks; those of them that came from a list that was
served (they bear its request id); times put into a cart; times bought; times shown in a list."""
Value = Any
"""A column of Spark or an array: it can be added, divided and so on."""


class ItemDays(Protocol):
    """What an item feature can ask for, as of the end of a day. Counts are 0 where nothing
    happened; times are missing where nothing ever did."""

    def total(self, measure: str, days: int) -> Value:
        """How often, in the `days` days (1 or more) that end with the row's day."""
        ...

    def total_ever(self, measure: str) -> Value:
        """How often until the end of the row's day."""
        ...

    def days_since_last(self, measure: str) -> Value:
        """Days, with fractions, from the last time to the end of the row's day."""
        ...

    def days_since_first(self, measure: str) -> Value:
        """Days, with fractions, from the first time ever to the end of the row's day."""
        ...

    def at_most(self, value: Value, most: float) -> Value:
        """The value, or `most` where it is larger; missing stays missing."""
        ...


ItemFeature = Callable[[ItemDays], Value]
ITEM_FEATURES: dict[str, ItemFeature] = {}
"""The functions below by name."""


def item_feature(function: ItemFeature) -> ItemFeature:
    """Registers the function of the feature of the same name."""
    ITEM_FEATURES[function.__name__] = function
    return function


@item_feature
def views_1d(days: ItemDays) -> Value:
    return days.total("views", 1)


@item_feature
def views_7d(days: ItemDays) -> Value:
    return days.total("views", 7)


@item_feature
def views_30d(days: ItemDays) -> Value:
    return days.total("views", 30)


@item_feature
def views_share_30d(days: ItemDays) -> Value:
    return days.total("views", 30) / (days.total_ever("views") + 1)


@item_feature
def carts_30d(days: ItemDays) -> Value:
    return days.total("carts", 30)


@item_feature
def purchases_30d(days: ItemDays) -> Value:
    return days.total("purchases", 30)


@item_feature
def cart_rate_30d(days: ItemDays) -> Value:
    return days.total("carts", 30) / (days.total("views", 30) + 10)


@item_feature
def purchase_rate_30d(days: ItemDays) -> Value:
    return days.total("purchases", 30) / (days.total("views", 30) + 10)


@item_feature
def trend_7d(days: ItemDays) -> Value:
    return (days.total("views", 7) + 1) / (days.total("views", 30) / 4 + 1)


@item_feature
def days_since_seen(days: ItemDays) -> Value:
    return days.days_since_last("views")


@item_feature
def days_since_new(days: ItemDays) -> Value:
    # at most the longest window: beyond, it would tell the age of the lake, not of the item
    return days.at_most(days.days_since_first("views"), 30.0)


@item_feature
def impressions_7d(days: ItemDays) -> Value:
    return days.total("impressions", 7)


@item_feature
def click_rate_7d(days: ItemDays) -> Value:
    return days.total("list_views", 7) / (days.total("impressions", 7) + 20)


def check_declared(declared: Iterable[str], written: Iterable[str]) -> None:
    """UsageError unless both name the same features."""
    without = sorted(set(declared) - set(written))
    unknown = sorted(set(written) - set(declared))
    if without:
        raise UsageError(
            f"contracts/features.py declares {', '.join(without)} in item_activity, but "
            "contracts/item_features.py has no function of that name: write one with @item_feature"
        )
    if unknown:
        raise UsageError(
            f"contracts/item_features.py has {', '.join(unknown)}, which contracts/features.py "
            "does not declare in item_activity: declare it there with its meaning"
        )


def check_measure(measure: str, days: int = 1) -> None:
    """UsageError for what is not counted, or a window of less than a day."""
    if measure not in MEASURES:
        raise UsageError(f"{measure!r} is not counted of items; counted are {', '.join(MEASURES)}")
    if days < 1:
        raise UsageError(f"a window of {days!r} days: expected 1 or more")
