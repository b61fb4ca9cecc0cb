"""Trends from the stream: Spark Structured Streaming over Kafka, rows to Redis and to the tables.

One cycle (`TrendStream.cycle`):
1. Note the time, then read everything that Kafka holds (`availableNow`: a checkpointed query to
   the offsets at its start): valid messages, appended to the store by the bucket they count in.
2. All that was sent until `SETTLE` before that time is read, so every bucket that ended `LATENESS`
   before it is complete. Count the newly complete ones, each message id once; store them.
3. From the stored buckets of the last 7 days, the batch run's and the stream's own, compute the
   rows of the moments newly passed: to the offline tables, then to the online store.
4. Save the progress.
A crash anywhere repeats from the last saved progress: messages are counted by id, buckets and rows
are written under the pass's own name, and what goes online are values, not increments.

Spark's own watermark is not used: it is the greatest time seen in any partition less a delay. A
quiet shop would never close a window, and a partition that is read behind the others, as after an
outage, would lose what it holds. Kafka's offsets say exactly what has been read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import ServiceError
from contracts.features import VIEWS, of_view
from contracts.known import LATENESS_MS
from contracts.settings import Settings
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from feast_engine.writer import OnlineWriter
from spark_jobs.buckets import STEP_MS, bucket_end, category_buckets, counted, item_buckets
from spark_jobs.session import is_local, spark_session
from spark_jobs.stream_messages import (
    first_told,
    kafka_messages,
    late,
    message_facts,
    parsed_messages,
)
from spark_jobs.stream_state import Progress
from spark_jobs.stream_store import REPEATS_MS, StreamStore
from spark_jobs.tables import hadoop_path
from spark_jobs.windows import LONGEST_MS, TABLES, changes, touched, window_rows
from spark_jobs.windows_job import (
    batch_buckets,
    batch_until,
    offline_table,
    publish_stream_rows,
)

CONNECTOR = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.0"
SETTLE = timedelta(seconds=35)
"""A message is in Kafka this long after the time that it bears, or never: senders give up after 30
seconds (orchestrator.kafka_log), and clocks differ a little."""
SETTLE_MS = SETTLE // timedelta(milliseconds=1)
PASS_MS = timedelta(days=1) // timedelta(milliseconds=1)
"""A pass goes over a day at most: after a long outage there are several."""
STANDSTILL_SECONDS = 300.0
"""A query that takes in nothing for so long hangs."""
ONLINE_ROWS = 5000
POLL_SECONDS = 0.2
LOCAL_FILES = 2


@dataclass
class Work:
    """What a stream has done since it started; the page and the benchmark show it."""

    cycles: int = 0
    messages: int = 0
    rows: int = 0
    seconds: float = 0.0
    drain_seconds: float = 0.0
    told: int = 0
    alive: float = 0.0
    """When it last got on (monotonic seconds)."""


def stream_session(settings: Settings) -> SparkSession:
    """A Spark session with the Kafka connector, small where all of it runs on this machine."""
    small = {
        "spark.driver.memory": settings.stream_memory,
        "spark.driver.defaultJavaOptions": "-XX:+UseSerialGC -XX:ReservedCodeCacheSize=96m -Xss512k",
        "spark.sql.ui.retainedExecutions": "5",
        "spark.ui.retainedJobs": "20",
        "spark.ui.retainedStages": "20",
        "spark.ui.retainedTasks": "200",
        "spark.sql.streaming.ui.enabled": "false",
        "spark.sql.streaming.minBatchesToRetain": "10",
        "spark.cleaner.periodicGC.interval": "5min",
    }
    jars = {
        "spark.app.name": "nextclick-stream",
        "spark.jars.packages": CONNECTOR,
        "spark.jars.ivy": str(Path(settings.tools) / "spark"),
    }
    return spark_session(settings, jars | (small if is_local(settings) else {}))


class TrendStream:
    """Cycles over Kafka. `clock`: milliseconds since 1970."""

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        online: OnlineWriter,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.work = Work(alive=time.monotonic())
        self._spark, self._settings, self._online, self._clock = spark, settings, online, clock
        self._store = StreamStore(spark, hadoop_path(settings.stream_state))
        self._progress = self._store.progress.read() or self._first()
        self._stopping = threading.Event()

    @property
    def progress(self) -> Progress:
        return self._progress

    def stop(self) -> None:
        """End the cycle under way as soon as that is possible; it is repeated at the next start."""
        self._stopping.set()

    def cycle(self) -> Progress:
        """One look into Kafka and all that follows from it."""
        began, start = self._clock(), time.monotonic()
        self._drain()
        self.work.drain_seconds = time.monotonic() - start
        if not self._stopping.is_set():
            self.advance(began - SETTLE_MS - LATENESS_MS)
        self.work.cycles += 1
        self.work.seconds = time.monotonic() - start
        self.work.told = self._progress.told
        self.work.alive = time.monotonic()
        return self._progress

    def advance(self, until: int) -> None:
        """Count and tell up to `until` (milliseconds): everything that counts before is stored."""
        progress = self._begin(until)
        while progress.passing and not self._stopping.is_set():
            if progress.counted < progress.target:
                self._count(progress.counted, progress.target)
            if progress.told < progress.target:
                self._tell(progress)
            told = max(progress.told, progress.target)
            self._save(replace(progress, counted=progress.target, told=told))
            self._store.tidy(progress.target)
            progress = self._begin(until)  # the last pass may have been one from before a crash

    # --- 1: what Kafka holds ---

    def _drain(self) -> None:
        messages = kafka_messages(self._spark, self._settings, self._progress.origin)
        query = (
            messages.writeStream.foreachBatch(self._keep)
            .option("checkpointLocation", self._store.checkpoint)
            .trigger(availableNow=True)
            .start()
        )
        try:
            while not query.awaitTermination(POLL_SECONDS):
                if self._stopping.is_set():
                    return
                if time.monotonic() - self.work.alive > STANDSTILL_SECONDS:
                    raise ServiceError(f"nothing came from Kafka ({self._settings.kafka}) for "
                                       f"{STANDSTILL_SECONDS:g} s though it holds messages")  # fmt: skip
            self.work.messages += sum(each.numInputRows for each in query.recentProgress)
        finally:
            query.stop()

    def _keep(self, messages: DataFrame, _batch: int) -> None:
        """Store a micro-batch. What counts in a bucket that is closed (it was longer under way than
        `SETTLE`) counts in the next one, so that it is not lost."""
        progress = self._progress
        at = counted(F.col("time"), F.col("received"))
        rows = parsed_messages(messages, self._settings).withColumn("at", at)
        rows = rows.where(F.col("at") >= progress.origin)
        rows = rows.withColumn("at", F.greatest("at", F.lit(progress.counted)))
        rows = rows.withColumn("end", bucket_end(F.col("at")))
        self._store.add_messages(rows.coalesce(LOCAL_FILES) if is_local(self._settings) else rows)
        self.work.alive = time.monotonic()

    # --- 2: buckets ---

    def _count(self, after: int, until: int) -> None:
        items = item_buckets(message_facts(self._fresh(after, until))).persist()
        catalogue = offline_table(self._spark, self._settings.offline, Offline.item_catalogue)
        self._store.put_buckets(after, until, items.unionByName(category_buckets(items, catalogue)))
        items.unpersist()

    def _fresh(self, after: int, until: int) -> DataFrame:
        """Messages of buckets that end in (after, until], each once, and none that counted before.

        A repeat counts when it becomes known, as its first copy did. So the first copy is in the
        same bucket, or in the one before (a clock that is ahead), or the repeat is a late one.
        """
        rows = first_told(self._store.messages(after, until)).persist()
        ids = rows.where(late()).select("id", "time")
        first = ids.agg(F.min(bucket_end(F.col("time")))).collect()[0][0]
        seen = self._store.messages(after - STEP_MS, after).select("id")
        if first is not None:
            start = max(min(first - 2 * STEP_MS, after), after - REPEATS_MS)
            old = self._store.messages(start, after).select("id")
            seen = seen.unionByName(old.join(F.broadcast(ids.select("id")), "id", "left_semi"))
        return rows.join(seen, "id", "left_anti")

    # --- 3: rows ---

    def _tell(self, progress: Progress) -> None:
        after, until = progress.told, progress.target
        changed = changes(touched(self._buckets(progress), after, until), after, until).persist()
        created = F.timestamp_millis(F.lit(self._clock()))
        for entity, table in TABLES.items():
            rows = window_rows(changed, entity, created)
            new = rows if after == progress.counted else self._untold(table, rows, after)
            if not new.isEmpty():
                publish_stream_rows(self._spark, self._settings.offline, table, new, after, until)
            self.work.rows += self._write_online(table, rows)
        changed.unpersist()

    def _untold(self, table: Offline, rows: DataFrame, after: int) -> DataFrame:
        """Of rows that are told anew, those that say something else than before."""
        stored = offline_table(self._spark, self._settings.offline, table)
        told = stored.where(F.unix_millis(EVENT_TIMESTAMP) > after)
        same = [name for name in rows.columns if name != CREATED_TIMESTAMP]
        return rows.join(told, same, "left_anti").select(rows.columns)

    def _buckets(self, progress: Progress) -> DataFrame:
        """Of the last 7 days before what is to be told: the batch run's, then the stream's own."""
        since, history = progress.told - LONGEST_MS, progress.history
        own = self._store.buckets(max(since, history or since), progress.target)
        if history is None:
            return own
        batch = batch_buckets(self._spark, self._settings.offline, history)
        return batch.where(F.col("end") > since).unionByName(own)

    def _write_online(self, table: Offline, rows: DataFrame) -> int:
        """The newest row of each key; how many."""
        (key,) = VIEWS[table.value].join_keys
        newest = Window.partitionBy(key).orderBy(F.col(EVENT_TIMESTAMP).desc())
        latest = rows.withColumn("_place", F.row_number().over(newest)).where("_place = 1")
        millis = F.unix_millis(EVENT_TIMESTAMP).alias(EVENT_TIMESTAMP)
        names = [feature.name for feature in of_view(table.value)]
        found: Any = latest.select(key, millis, *names).toArrow()
        for start in range(0, found.num_rows, ONLINE_ROWS):
            part = found.slice(start, ONLINE_ROWS)
            columns = {name: part.column(name).to_numpy() for name in names}
            keys, times = part.column(key).to_pylist(), part.column(EVENT_TIMESTAMP).to_pylist()
            self._online.write(table.value, keys, times, columns)
            self.work.alive = time.monotonic()
        return int(found.num_rows)

    # --- 4: progress ---

    def _first(self) -> Progress:
        """At the very first start: on from where the batch run ended, a week back at most."""
        week = (self._clock() - LONGEST_MS) // STEP_MS * STEP_MS
        history = batch_until(self._spark, self._settings.offline)
        origin = week if history is None else max(history, week)
        progress = Progress(origin, origin, origin, origin, history)
        self._store.progress.write(progress)
        return progress

    def _begin(self, until: int) -> Progress:
        """The pass under way, or the next one. After another batch run, what follows its end is
        told anew: its buckets hold what the stream left out (imports)."""
        progress = self._progress
        if progress.passing:
            return progress
        history = batch_until(self._spark, self._settings.offline)
        told = progress.told if history in (None, progress.history) else history
        reach = min(until // STEP_MS * STEP_MS, progress.counted + PASS_MS)
        target = max(progress.counted, reach)
        begun = replace(progress, told=told, target=target, history=history)
        if begun != progress:
            self._save(begun)
        return begun

    def _save(self, progress: Progress) -> None:
        self._store.progress.write(progress)
        self._progress = progress
        self.work.alive = time.monotonic()
