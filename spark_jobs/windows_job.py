"""The job `windows`: buckets and trends of all history, and how they meet the stream's.

The batch tells of everything that was known until `complete_until` of the run; the folder
`<offline>/buckets/until=<milliseconds>` says where that is. What the stream has told of later
moments stays: its rows lie beside the batch's, in files named `STREAM_FILES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.tables import EVENT_TIMESTAMP, OFFLINE_COLUMNS, Lake, Offline
from spark_jobs.buckets import category_buckets, facts, item_buckets
from spark_jobs.clean import first_known
from spark_jobs.tables import Files, hadoop_path, spark_schema
from spark_jobs.windows import TABLES, changes, complete_until, usual_created, window_rows

if TYPE_CHECKING:
    from spark_jobs.jobs import Run

STREAM_FILES = "stream-*.parquet"
_UNTIL = "until="


def run_windows(run: Run) -> None:
    until = complete_until(run.until)
    items = item_buckets(facts(first_known(run.messages()), run.lake(Lake.impressions)))
    items = items.where(F.col("end") <= until).persist()
    categories = category_buckets(items, run.staging.read(Offline.item_catalogue))
    buckets = items.unionByName(categories).persist()
    changed = changes(buckets, -1, until).persist()
    for entity, table in TABLES.items():
        rows = window_rows(changed, entity, usual_created())
        later = stream_rows(run.spark, run.settings.offline, table, until)
        run.write(table, rows.unionByName(later), files=4)
    # the last to appear: it tells the stream that this run's tables are there. Sorted, so that who
    # needs the last week reads no more
    run.write(Offline.buckets, buckets.sort("end"), f"{_UNTIL}{until}", files=4)
    for frame in (items, buckets, changed):
        frame.unpersist()


def stream_rows(spark: SparkSession, offline: str, table: Offline, after: int) -> DataFrame:
    """What the stream wrote of moments after `after` (milliseconds) into the table's place."""
    rows = offline_table(spark, offline, table, STREAM_FILES)
    return rows.where(F.unix_millis(EVENT_TIMESTAMP) > after)


def publish_stream_rows(
    spark: SparkSession, offline: str, table: Offline, rows: DataFrame, after: int, until: int
) -> None:
    """The stream's rows of moments in (after, until] as one file in the table's place. It appears
    there whole, and replaces the one that the same stretch gave before."""
    root = hadoop_path(offline)
    building, place = f"{root}/.stream-{table.value}", f"{root}/{table.value}"
    files, target = Files(spark, root), f"{place}/stream-{after}-{until}.parquet"
    rows.coalesce(1).write.mode("overwrite").parquet(building)
    [written] = files.files(building, ".parquet")
    files.make(place)
    files.delete(target)
    files.move(f"{building}/{written}", target)
    files.delete(building)


def offline_table(
    spark: SparkSession, offline: str, table: Offline, names: str = "*.parquet"
) -> DataFrame:
    """A table's files of these names; an empty frame where there are none."""
    schema, place = spark_schema(OFFLINE_COLUMNS[table]), f"{hadoop_path(offline)}/{table.value}"
    if not Files(spark, place).exists(place):
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).option("pathGlobFilter", names).parquet(place)


def batch_until(spark: SparkSession, offline: str) -> int | None:
    """Until when the last batch run tells, milliseconds; None where there was none."""
    place = f"{hadoop_path(offline)}/{Offline.buckets.value}"
    ends = [
        int(name.removeprefix(_UNTIL))
        for name in Files(spark, place).folders(place)
        if name.startswith(_UNTIL)
    ]
    return max(ends, default=None)


def batch_buckets(spark: SparkSession, offline: str, until: int) -> DataFrame:
    """Rows of `Offline.buckets` of the batch run that tells until then."""
    place = f"{hadoop_path(offline)}/{Offline.buckets.value}/{_UNTIL}{until}"
    return spark.read.schema(spark_schema(OFFLINE_COLUMNS[Offline.buckets])).parquet(place)
