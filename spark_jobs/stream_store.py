"""What the stream keeps on disk or S3: messages until their repeats are over, buckets for a week.

`<stream_state>/messages/end=<E>/`: valid messages that count in the bucket that ends at E, each at
least once: a micro-batch that is repeated after a crash writes its messages again, and they are
counted by their id. `<stream_state>/buckets/<after>-<until>/`: the buckets of a pass, written as a
whole under the pass's own name, so that a repeated pass replaces them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.tables import OFFLINE_COLUMNS, Columns, Offline
from spark_jobs.buckets import STEP_MS
from spark_jobs.stream_messages import STORED_COLUMNS
from spark_jobs.stream_state import ProgressStore
from spark_jobs.tables import spark_schema

REPEATS = timedelta(days=1)
"""A message that comes again within this time after it was first told counts once."""
REPEATS_MS = REPEATS // timedelta(milliseconds=1)
BUCKETS_KEPT_MS = timedelta(days=8) // timedelta(milliseconds=1)
"""The longest window, and a day for batch runs that come late."""
MERGED = 48
"""Passes whose buckets are put together: a week is 2016 passes, too many folders to read."""


class Span(NamedTuple):
    """Buckets that end in (after, until], and the folder's name."""

    after: int
    until: int
    name: str


class StreamStore:
    """The folder `stream_state`."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self._spark = spark
        self._messages, self._buckets = f"{root}/messages", f"{root}/buckets"
        self.checkpoint = f"{root}/checkpoint"
        self.progress = ProgressStore(spark, f"{root}/progress")
        self._files = self.progress

    def add_messages(self, messages: DataFrame) -> None:
        """messages: `STORED_COLUMNS` and `end`."""
        messages.write.mode("append").partitionBy("end").parquet(self._messages)

    def messages(self, after: int, until: int) -> DataFrame:
        """Messages that count in buckets that end in (after, until]; some more than once."""
        ends = [end for end in self._ends() if after < end <= until]
        return self._read([f"{self._messages}/end={end}" for end in ends], STORED_COLUMNS)

    def put_buckets(self, after: int, until: int, buckets: DataFrame) -> None:
        buckets.coalesce(1).write.mode("overwrite").parquet(f"{self._buckets}/{after}-{until}")

    def buckets(self, after: int, until: int) -> DataFrame:
        """Rows of `Offline.buckets` that end in (after, until]."""
        spans = [span for span in self._spans() if span.until > after and span.after < until]
        paths = [f"{self._buckets}/{span.name}" for span in spans]
        found = self._read(paths, OFFLINE_COLUMNS[Offline.buckets])
        return found.where((F.col("end") > after) & (F.col("end") <= until))

    def tidy(self, until: int) -> None:
        """Forget what nothing that comes after `until` needs, and put small folders together."""
        for end in self._ends():
            if end <= until - REPEATS_MS - STEP_MS:
                self._files.delete(f"{self._messages}/end={end}")
        spans = self._spans()
        for span in spans:
            if span.until <= until - BUCKETS_KEPT_MS:
                self._files.delete(f"{self._buckets}/{span.name}")
        single = [span for span in spans if span.until - span.after <= STEP_MS]
        if len(single) >= MERGED:
            self._merge(single)

    def _merge(self, spans: Sequence[Span]) -> None:
        after, until = spans[0].after, spans[-1].until
        inside = [span for span in self._spans() if after <= span.after and span.until <= until]
        self.put_buckets(after, until, self.buckets(after, until))
        for span in inside:  # after a crash here they are passed over, see `_spans`
            self._files.delete(f"{self._buckets}/{span.name}")

    def _ends(self) -> list[int]:
        names = self._files.folders(self._messages)
        return sorted(int(name[4:]) for name in names if name.startswith("end="))

    def _spans(self) -> list[Span]:
        """In order of time; one that lies within another is what a merge left behind."""
        found = []
        for name in self._files.folders(self._buckets):
            after, _, until = name.partition("-")
            found.append(Span(int(after), int(until), name))
        kept: list[Span] = []
        for span in sorted(found, key=lambda each: (each.after, -each.until)):
            if not kept or span.until > kept[-1].until:
                kept.append(span)
        return kept

    def _read(self, paths: Sequence[str], columns: Columns) -> DataFrame:
        schema = spark_schema(columns)
        if not paths:
            return self._spark.createDataFrame([], schema)
        return self._spark.read.schema(schema).parquet(*paths)
