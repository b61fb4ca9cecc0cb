"""Windows over daily counts of items that end with a day: what item features read.

A row (item, day) holds what counts up to the end of that day, UTC. Items have a row for each day
on which some window can hold something, and for the day on which the longest falls to zero.
"""

from __future__ import annotations

from datetime import timedelta

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.item_features import MEASURES, check_measure

DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)


class ItemDays:
    """`contracts.item_features.ItemDays` as columns. It notes what they have to be made from.

    Counts are 0 where nothing happened; times are null where nothing ever did.
    """

    def __init__(self) -> None:
        self.longest = 1
        self.columns: dict[str, Column] = {}

    def total(self, measure: str, days: int) -> Column:
        """How often, in the `days` days (1 or more) that end with the row's day."""
        check_measure(measure, days)
        self.longest = max(self.longest, days)
        # the difference of two running sums: each row costs the same however long the window
        return self._column(f"{measure}_{days}", _running(measure) - _running(measure, days))

    def total_ever(self, measure: str) -> Column:
        """How often until the end of the row's day."""
        check_measure(measure)
        return self._column(f"{measure}_ever", _running(measure))

    def days_since_last(self, measure: str) -> Column:
        """Days, with fractions, from the last time to the end of the row's day."""
        check_measure(measure)
        last = self._column(f"{measure}_last", F.max(f"last_{measure}").over(_up_to()))
        return (F.col("end") - last) / DAY_MS

    def days_since_first(self, measure: str) -> Column:
        """Days, with fractions, from the first time ever to the end of the row's day."""
        check_measure(measure)
        first = self._column(f"{measure}_first", F.min(f"first_{measure}").over(_up_to()))
        return (F.col("end") - first) / DAY_MS

    def at_most(self, value: Column, most: float) -> Column:
        """The value, or `most` where it is larger; null stays null, which `least` passes over."""
        return F.when(value.isNotNull(), F.least(value, F.lit(most)))

    def _column(self, name: str, column: Column) -> Column:
        self.columns[f"_{name}"] = column
        return F.col(f"_{name}")


def _up_to(days_ago: int = 0) -> Window:
    in_order = Window.partitionBy("item_id").orderBy("day")
    return in_order.rangeBetween(Window.unboundedPreceding, -days_ago)


def _running(measure: str, days_ago: int = 0) -> Column:
    return F.coalesce(F.sum(measure).over(_up_to(days_ago)), F.lit(0))


def windows(counts: DataFrame, days: ItemDays, midnight: int) -> DataFrame:
    """(item_id, day, end in milliseconds, `days.columns`), for each day before `midnight` on which
    `days.longest` days can hold something and the next."""
    end = ((F.col("day") + 1) * DAY_MS).alias("end")
    rows = _spread(counts, days.longest, midnight // DAY_MS - 1)
    named = [column.alias(name) for name, column in days.columns.items()]
    return rows.select("item_id", "day", end, *named)


def _spread(counts: DataFrame, longest: int, last_day: int) -> DataFrame:
    """Fills up to `longest` days after each counted day with rows of nothing, never past `last_day`."""
    following = F.lead("day").over(Window.partitionBy("item_id").orderBy("day")) - 1
    # least() passes over null: the last counted day has no following one
    until = F.least("_until", F.col("day") + longest, F.lit(last_day))
    days = counts.withColumn("_until", following).withColumn(
        "_days", F.explode(F.sequence(F.lit(0), until - F.col("day")))
    )
    counted = F.col("_days") == 0
    sums = {name: F.when(counted, F.col(name)).otherwise(0) for name in MEASURES}
    return days.withColumns({**sums, "day": F.col("day") + F.col("_days")})
