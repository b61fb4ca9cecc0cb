"""What the shop says of its items, as a log of changes: a row from when something else holds."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name
from pyspark.sql import types as T  # noqa: N812

from contracts.features import text_id
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.tables import conform, timestamp

CATALOGUE_DELAY = timedelta(seconds=1)
"""Usual time from a shop's message to its being known. Added to the message's own time: when a
message of last year was received says nothing of when it would have been known."""
_VALUES = ("category", "brand", "price", "available")
_ORDER = ("time", "received", "partition", "offset")


def catalogue(products: DataFrame, prices: DataFrame) -> DataFrame:
    """`Offline.item_catalogue` of the lake's tables `products` and `prices`.

    A field that a message leaves out keeps its last value; an item of which availability was
    never said can be bought. Messages that change nothing give no row.
    """
    messages = products.unionByName(prices, allowMissingColumns=True)
    valid = messages.where(F.length("item_id") > 0).where(F.col("time") >= 0)
    in_order = Window.partitionBy("item_id").orderBy(*_ORDER)
    known = [F.last(name, ignorenulls=True).over(in_order).alias(name) for name in _VALUES]
    states = valid.select("item_id", *_ORDER, *known)
    return conform(_described(_changes(_last_of_moment(states))), Offline.item_catalogue)


def _last_of_moment(states: DataFrame) -> DataFrame:
    newest = [F.col(name).desc() for name in _ORDER]
    place = F.row_number().over(Window.partitionBy("item_id", "time").orderBy(*newest))
    return states.withColumn("_place", place).where("_place = 1")


def _changes(states: DataFrame) -> DataFrame:
    values = F.struct(*_VALUES)
    before = F.lag(values).over(Window.partitionBy("item_id").orderBy("time"))
    return states.withColumn("_same", values.eqNullSafe(before)).where(~F.col("_same"))


def _described(states: DataFrame) -> DataFrame:
    delay = CATALOGUE_DELAY // timedelta(milliseconds=1)
    return states.select(
        "item_id", "category", "brand", "price",
        timestamp(F.col("time")).alias(EVENT_TIMESTAMP),
        timestamp(F.col("time") + delay).alias(CREATED_TIMESTAMP),
        _id("category").alias("category_id"),
        _id("brand").alias("brand_id"),
        F.coalesce(F.col("available").cast("long"), F.lit(1)).alias("available"),
    )  # fmt: skip


def _id(name: str) -> Column:
    column: Column = _text_ids(F.col(name))
    return column


def _ids(texts: pd.Series) -> pd.Series:
    return texts.map(text_id, na_action="ignore").fillna(0).astype("int64")


_text_ids = F.pandas_udf(_ids, T.LongType())
