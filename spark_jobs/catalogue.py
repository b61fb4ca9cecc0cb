"""What the shop says of its items, as a log of changes: a row from when something else holds.

A message that comes late also changes what held after its time, where later messages left that
open: then those rows are written again with a later created time, and the old ones stay, for they
are what was known before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.features import text_id
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, OFFLINE_COLUMNS, Offline
from spark_jobs.tables import spark_schema
from spark_jobs.walk import Row, arrow_schema, row_batches

CATALOGUE_DELAY = timedelta(seconds=1)
"""Usual time from a shop's message being known to its being in the table."""
_DELAY_MS = CATALOGUE_DELAY // timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ = ("item_id", "known", "time", "category", "brand", "price", "available")


class Said(NamedTuple):
    """What a message says of an item; None: it leaves that open."""

    category: str | None = None
    brand: str | None = None
    price: float | None = None
    available: bool | None = None

    def then(self, later: Said) -> Said:
        """What holds after both."""
        return later._replace(
            **{name: old for name, old in self._asdict().items() if getattr(later, name) is None}
        )


class Message(NamedTuple):
    """Times in milliseconds."""

    known: int
    time: int
    said: Said


class Change(NamedTuple):
    """From `time` on `holds` holds, as is known since `created` (both milliseconds)."""

    time: int
    created: int
    holds: Said


def catalogue(products: DataFrame, prices: DataFrame) -> DataFrame:
    """`Offline.item_catalogue` of the lake's tables `products` and `prices`.

    A field that a message leaves out keeps its last value; an item of which availability was
    never said can be bought. Messages that change nothing give no row.
    """
    messages = products.unionByName(prices, allowMissingColumns=True)
    valid = messages.where(F.length("item_id") > 0).where(F.col("time") >= 0)
    told = valid.withColumn("known", F.coalesce("received", "time")).repartition("item_id")
    in_order = told.sortWithinPartitions("item_id", "known", "partition", "offset")
    schema = spark_schema(OFFLINE_COLUMNS[Offline.item_catalogue])
    return in_order.select(*_READ).mapInArrow(_rows, schema)


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    lists = ([column.to_pylist() for column in batch.columns] for batch in batches)
    rows = (row for columns in lists for row in zip(*columns, strict=True))
    items = groupby(rows, key=itemgetter(0))
    described = (
        _described(item, change)
        for item, group in items
        for change in changes(Message(known, time, Said(*said)) for _, known, time, *said in group)
    )
    return row_batches(described, arrow_schema(OFFLINE_COLUMNS[Offline.item_catalogue]))


def _described(item: str, change: Change) -> Row:
    holds = change.holds
    return {
        "item_id": item,
        EVENT_TIMESTAMP: _EPOCH + timedelta(milliseconds=change.time),
        CREATED_TIMESTAMP: _EPOCH + timedelta(milliseconds=change.created),
        "category": holds.category,
        "brand": holds.brand,
        "price": holds.price,
        "category_id": text_id(holds.category),
        "brand_id": text_id(holds.brand),
        "available": 1 if holds.available is None else int(holds.available),
    }


def changes(messages: Iterable[Message]) -> Iterator[Change]:
    """The rows of one item. messages: in the order in which they became known.

    At any moment the newest of the rows created by then, of one time the one created last, tells
    what the messages known by then say.
    """
    history = _History()
    for known, together in groupby(messages, key=lambda message: message.known):
        first = min(history.add(message) for message in together)
        for time, holds in history.changed(first):
            yield Change(time, known + _DELAY_MS, holds)


class _History:
    """What was said of an item by time, and what the rows so far say."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._said: dict[int, Said] = {}
        self._holds: dict[int, Said] = {}
        self._written: dict[int, Said] = {}

    def add(self, message: Message) -> int:
        """The time from which on something else may hold."""
        _, time, said = message
        if time not in self._said:
            self._times.insert(bisect_left(self._times, time), time)
        self._said[time] = self._said.get(time, Said()).then(said)
        return time

    def changed(self, first: int) -> Iterator[tuple[int, Said]]:
        """The times from `first` on of which the rows so far say something else, and what holds."""
        place = bisect_left(self._times, first)
        before = self._holds[self._times[place - 1]] if place else None
        for time in self._times[place:]:
            holds = (before or Said()).then(self._said[time])
            self._holds[time] = holds
            if holds != self._written.get(time, before):
                self._written[time] = holds
                yield time, holds
            before = holds
