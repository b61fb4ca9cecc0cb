"""Reads the lake and writes the offline tables, so that no reader ever sees half a table.

A run writes every table into a staging folder within the offline store and, when all of them are
whole, moves them to their places (`Staging.publish`). A run that is killed before leaves the old
tables as they were. Folders are moved by Hadoop's file system interface: a rename on a disk and
on HDFS; on S3 a rename is a copy, so there readers should wait for the run to end.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name
from pyspark.sql import types as T  # noqa: N812

from contracts.errors import UsageError
from contracts.settings import Settings
from contracts.tables import LAKE_COLUMNS, OFFLINE_COLUMNS, Columns, Lake, Offline

_TYPES: dict[str, T.DataType] = {
    "string": T.StringType(),
    "int32": T.IntegerType(),
    "int64": T.LongType(),
    "float": T.FloatType(),
    "double": T.DoubleType(),
    "bool": T.BooleanType(),
    "timestamp": T.TimestampType(),
}
STALE_STAGING = timedelta(days=1)
"""A staging folder older than this is what a killed run left behind."""


def spark_type(name: str) -> Any:
    """Spark's type for an Arrow type's name as `contracts.tables` writes it."""
    if name.startswith("list<"):
        return T.ArrayType(spark_type(name[5:-1]))
    return _TYPES[name]


def spark_schema(columns: Columns) -> Any:
    return T.StructType([T.StructField(name, spark_type(kind)) for name, kind in columns.items()])


def conform(frame: DataFrame, table: Offline) -> DataFrame:
    """The table's columns, in declared order and type."""
    columns = OFFLINE_COLUMNS[table]
    return frame.select(*(F.col(name).cast(spark_type(kind)) for name, kind in columns.items()))


def timestamp(milliseconds: Column) -> Column:
    return F.timestamp_millis(milliseconds)


def read_lake(spark: SparkSession, lake: str, table: Lake) -> DataFrame:
    """A lake table with its declared columns; an empty frame where nothing was ever written."""
    schema = spark_schema(LAKE_COLUMNS[table])
    path = f"{hadoop_path(lake)}/{table.value}"
    if not Files(spark, path).has_parquet(path):
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).parquet(path).select(*LAKE_COLUMNS[table])


def hadoop_path(path: str) -> str:
    """Feast and DuckDB say s3://, Hadoop says s3a://."""
    text = f"s3a://{path.removeprefix('s3://')}" if path.startswith("s3://") else path
    return text.rstrip("/")


class Files:
    """The few operations on folders that the jobs need, on whatever file system `path` lies."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._jvm: Any = spark.sparkContext._jvm
        configuration = spark.sparkContext._jsc.hadoopConfiguration()
        self._system: Any = self._path(path).getFileSystem(configuration)

    def exists(self, path: str) -> bool:
        return bool(self._system.exists(self._path(path)))

    def has_parquet(self, path: str) -> bool:
        """Whether a Parquet file lies in the folder or below; hidden ones (`.` or `_`) aside."""
        if not self.exists(path):
            return False
        files = self._system.listFiles(self._path(path), True)
        while files.hasNext():
            name = files.next().getPath().getName()
            if name.endswith(".parquet") and not name.startswith((".", "_")):
                return True
        return False

    def move(self, source: str, target: str) -> None:
        """Rename a folder; OSError when the file system refuses."""
        if not self._system.rename(self._path(source), self._path(target)):
            raise OSError(f"{source} could not be moved to {target}")

    def delete(self, path: str) -> None:
        self._system.delete(self._path(path), True)

    def make(self, path: str) -> None:
        self._system.mkdirs(self._path(path))

    def folders(self, path: str) -> dict[str, int]:
        """Folders in a folder, with the time of their last change in milliseconds."""
        if not self.exists(path):
            return {}
        entries = self._system.listStatus(self._path(path))
        return {
            entry.getPath().getName(): entry.getModificationTime()
            for entry in entries
            if entry.isDirectory()
        }

    def files(self, path: str, ending: str = "") -> list[str]:
        """Names of the files in a folder that end so; none where it is not there."""
        if not self.exists(path):
            return []
        entries = self._system.listStatus(self._path(path))
        names = [entry.getPath().getName() for entry in entries if entry.isFile()]
        return [name for name in names if name.endswith(ending) and not name.startswith(".")]

    def _path(self, path: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path)


class Staging:
    """The tables of one run on their way to their places in the offline store."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self._spark = spark
        self._root = hadoop_path(settings.offline)
        self._files = Files(spark, self._root)
        self._folder = f"{self._root}/.staging-{uuid.uuid4().hex[:8]}"
        self._staged: list[Offline] = []

    def write(self, table: Offline, frame: DataFrame, part: str = "", files: int = 1) -> int:
        """Stage a table, or one part (sub-folder) of it, as at most `files` files; the rows."""
        path = f"{self._folder}/{table.value}/{part}".rstrip("/")
        conform(frame, table).coalesce(files).write.mode("overwrite").parquet(path)
        if table not in self._staged:
            self._staged.append(table)
        return int(self._read(path, table).count())

    def read(self, table: Offline) -> DataFrame:
        """A table as this run left it, else as the last run did. UsageError when there is none."""
        folder = self._folder if table in self._staged else self._root
        path = f"{folder}/{table.value}"
        if not self._files.has_parquet(path):
            raise UsageError(
                f"there is no table {table.value} in {self._root}: run all jobs "
                "(python -m spark_jobs run), or name the job that writes it too (--jobs)"
            )
        return self._read(path, table)

    def _read(self, path: str, table: Offline) -> DataFrame:
        return self._spark.read.schema(spark_schema(OFFLINE_COLUMNS[table])).parquet(path)

    def publish(self) -> None:
        """Move every staged table to its place, then delete what it replaced."""
        for table in self._staged:
            place, old = f"{self._root}/{table.value}", f"{self._folder}/{table.value}.old"
            if self._files.exists(place):
                self._files.move(place, old)
            self._files.move(f"{self._folder}/{table.value}", place)
        self._staged.clear()
        self._files.delete(self._folder)

    def discard(self) -> None:
        """Put back what a half `publish` took away, and leave nothing of this run."""
        self._restore(self._folder)
        self._files.delete(self._folder)

    def recover(self) -> None:
        """Put back what a run that was killed within `publish` took away, and delete what killed
        runs left (see `STALE_STAGING`)."""
        limit = time.time_ns() // 1_000_000 - STALE_STAGING // timedelta(milliseconds=1)
        for name, changed in self._files.folders(self._root).items():
            if name.startswith(".staging-"):
                self._restore(f"{self._root}/{name}")
                if changed < limit:
                    self._files.delete(f"{self._root}/{name}")

    def _restore(self, folder: str) -> None:
        for name in self._files.folders(folder):
            place = f"{self._root}/{name.removesuffix('.old')}"
            if name.endswith(".old") and not self._files.exists(place):
                self._files.move(f"{folder}/{name}", place)
