"""The Spark join as an implementation of the suite's joins, in one Spark session for all of them."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.settings import Settings
from spark_jobs.asof import asof_join
from spark_jobs.join import read_parquet
from spark_jobs.session import spark_session
from tests.feast_engine.oracle import ROW, Case


@lru_cache
def spark() -> Any:
    """It ends with the process, or by `spark().stop()` and `spark.cache_clear()`."""
    home = Path(tempfile.mkdtemp(prefix="nextclick-spark-"))
    return spark_session(Settings.model_validate({"home": home, "spark_memory": "1g"}))


def join(case: Case, folder: Path) -> pa.Table:
    """The rows by their place: Spark keeps no order, so the suite's column of places tells it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(case.entity, folder / "entity.parquet")
    entity = read_parquet(spark(), str(folder / "entity.parquet"))
    history = read_parquet(spark(), str(case.write(folder / "history")))
    found = asof_join(entity, history, case.rule).select(ROW, *case.rule.features)
    rows = sorted(found.collect(), key=lambda row: (row[ROW] is None, row[ROW]))
    schema = pa.schema(
        [(ROW, pa.int64()), *((name, case.schema.field(name).type) for name in case.rule.features)]
    )
    return pa.Table.from_pylist([row.asDict() for row in rows], schema)
