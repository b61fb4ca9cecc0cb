"""The Spark application: local here, a cluster where the setting `spark_master` names one.

Java 17 or 21 is the caller's to name (JAVA_HOME). What a site needs beyond the settings, such as
the S3 connector's jars and keys, comes from its own spark-defaults.conf.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from contracts.errors import ServiceError
from contracts.settings import ROOT, Settings

CODE = ("contracts", "spark_jobs")
"""Packages that run inside Spark's Python workers."""
LOCAL_PARTITIONS = 4


def spark_session(settings: Settings, more: Mapping[str, str] | None = None) -> SparkSession:
    """A running session in UTC, with `more` of Spark's own settings. ServiceError when there is no
    Java or the master does not answer."""
    if is_local(settings):
        os.environ["PYSPARK_PYTHON"] = sys.executable  # else the workers are the system's Python
    builder = SparkSession.builder.master(settings.spark_master).appName("nextclick")
    for name, value in (_options(settings) | dict(more or {})).items():
        builder = builder.config(name, value)
    try:
        spark = builder.getOrCreate()
    except (PySparkException, OSError) as error:
        raise ServiceError(
            f"Spark did not start at {settings.spark_master}: {str(error).splitlines()[0]}; it needs "
            "Java 17 or 21: set JAVA_HOME to one, or use ./nextclick, which brings its own"
        ) from error
    if not is_local(settings):
        _ship_code(spark)
    return spark


def is_local(settings: Settings) -> bool:
    return settings.spark_master.startswith("local")


def _options(settings: Settings) -> dict[str, str]:
    log4j = Path(__file__).with_name("log4j2.properties").as_uri()
    everywhere = {
        "spark.driver.memory": settings.spark_memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log4j}",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "5000",
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    return everywhere | (_local_options(settings) if is_local(settings) else {})


def _local_options(settings: Settings) -> dict[str, str]:
    scratch = settings.home / "spark"
    return {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        # a shop that fits one machine: the planner's measuring between stages costs more than it
        # saves, and would put everything into one partition, thus on one core
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
        "spark.sql.shuffle.partitions": str(LOCAL_PARTITIONS),
        "spark.default.parallelism": str(LOCAL_PARTITIONS),
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": (scratch / "warehouse").as_uri(),
    }


def _ship_code(spark: SparkSession) -> None:
    """Send our packages to the executors; numpy, pandas, pyarrow and pydantic are theirs to have."""
    archive = Path(tempfile.mkdtemp(prefix="nextclick-")) / "nextclick.zip"
    write_code_archive(archive)
    spark.sparkContext.addPyFile(str(archive))


def write_code_archive(archive: Path) -> None:
    """`CODE` as a zip that Python imports from."""
    with zipfile.ZipFile(archive, "w") as out:
        for package in CODE:
            for file in sorted((ROOT / package).rglob("*.py")):
                out.write(file, file.relative_to(ROOT))
