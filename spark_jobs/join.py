"""A training set from a table of moments: the features of views as they were known then.

What Feast's `get_historical_features` does on one machine (`feast_engine`), as one Spark
application for a set that does not fit it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import ServiceError, UsageError
from contracts.features import VIEWS, of_view
from contracts.settings import Settings
from contracts.tables import Offline
from feast_engine.join_rule import MOMENT, JoinRule
from feast_engine.parquet import ParquetTable
from spark_jobs.asof import asof_join
from spark_jobs.session import spark_session
from spark_jobs.tables import Files, hadoop_path

_TABLES = {"context": Offline.session}
"""Tables of views that are not called like them."""


def run_join(
    settings: Settings, entities: str, views: Sequence[str], out: str, moment: str = MOMENT
) -> dict[str, Any]:
    """Write the rows of `entities` with the features of `views` beside them to `out`, a folder of
    Parquet files that must not exist yet, in no order; the summary.

    entities: a Parquet file or folder with the views' keys and the moments. UsageError for wrong
    use, ServiceError when Spark fails.
    """
    began = time.monotonic()
    rules = {view: rule_of(view) for view in views}
    spark = spark_session(settings)
    try:
        asked = read_parquet(spark, entities)
        joined = asked
        for view, rule in rules.items():
            history = read_parquet(spark, f"{settings.offline}/{_TABLES.get(view, view)}")
            joined = asof_join(joined, history, rule, moment=moment)
        place = hadoop_path(out)
        if Files(spark, place).exists(place):
            raise UsageError(f"{out} is there already: name another place, or delete it")
        joined.write.parquet(place)
        rows_out = spark.read.parquet(place).count()
        return {
            "rows_in": asked.count(),
            "rows_out": rows_out,
            "columns": joined.columns,
            "out": out,
            "seconds": round(time.monotonic() - began, 2),
        }
    except (PySparkException, Py4JError, OSError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise ServiceError(f"Spark failed: {lines[0]}") from error
    finally:
        spark.stop()


def rule_of(view: str) -> JoinRule:
    """The rule of a stored view, as contracts/features.py declares it."""
    stored = [name for name, declared in VIEWS.items() if not declared.on_demand]
    if view not in stored:
        raise UsageError(f"no stored view is called {view!r}; there are {', '.join(stored)}")
    declared = VIEWS[view]
    return JoinRule(
        keys={key: key for key in declared.join_keys},
        features=tuple(feature.name for feature in of_view(view)),
        max_age=declared.max_age,
        as_known=declared.as_known,
    )


def read_parquet(spark: SparkSession, path: str) -> DataFrame:
    """A Parquet table of whoever wrote it; a file that lacks a column has nulls there. Nanoseconds,
    which Spark has no type for, are cut to microseconds; of zones only the moment stays.
    UsageError where there is no table."""
    schema = _schema(path)
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    files = spark.read.option("mergeSchema", "true").parquet(hadoop_path(path))
    return files.select(*map(_column, schema))


def _schema(path: str) -> pa.Schema:
    if "://" not in path:
        return ParquetTable(path).schema
    try:
        store, place = fs.FileSystem.from_uri(path.replace("s3a://", "s3://", 1))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: no place of files: {error}") from None
    return ParquetTable(place, store).schema


def _column(field: pa.Field) -> Column:
    column = F.col("`" + field.name.replace("`", "``") + "`")
    if not (pa.types.is_timestamp(field.type) and field.type.unit == "ns"):
        return column
    return F.timestamp_micros(F.floor(column / 1000)).alias(field.name)
