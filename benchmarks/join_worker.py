"""One offline store's joins in a process of its own, so that its memory is its own.

`python -m benchmarks.join_worker FOLDER STORE MAX_AGE_SECONDS ROUNDS`: joins the tables of
`benchmarks.join_data` through Feast's API, once to warm up and `ROUNDS` times for the figures,
writes the answer to `FOLDER/answer-<place>.parquet` and prints one JSON document.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from benchmarks.join_data import feature_names

VIEW = "activity"


def main(arguments: list[str]) -> None:
    folder, store = Path(arguments[0]), arguments[1]
    max_age, rounds = timedelta(seconds=float(arguments[2])), int(arguments[3])
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feast = _open(folder, store, max_age)
        asked = pq.read_table(folder / "asked.parquet").to_pandas()
        ready = _peak()
        seconds, answer = [], pd.DataFrame()
        for _ in range(rounds + 1):
            del answer
            seconds.append(-time.perf_counter())
            answer = _join(feast, asked)
            seconds[-1] += time.perf_counter()
        peak = _peak()
        answer.to_parquet(folder / f"answer-{store.split('.')[-1]}.parquet")
    result = {"first": seconds[0], "seconds": seconds[1:], "rows": len(answer)}
    print(json.dumps({**result, "peak_mb": peak, "before_mb": ready}))


def _join(feast: Any, asked: pd.DataFrame) -> pd.DataFrame:
    features = [f"{VIEW}:{name}" for name in feature_names()]
    frame: pd.DataFrame = feast.get_historical_features(entity_df=asked, features=features).to_df()
    return frame


def _open(folder: Path, store: str, max_age: timedelta) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.data_format import ParquetFormat
    from feast.repo_config import RepoConfig
    from feast.types import Float32, String

    place = folder / f"feast-{os.getpid()}"
    config = RepoConfig(
        project="join",
        provider="local",
        registry=f"{place}.db",
        offline_store={"type": store},
        online_store={"type": "sqlite", "path": f"{place}-online.db"},
        entity_key_serialization_version=3,
    )
    config.repo_path = folder
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    source = FileSource(
        name=VIEW,
        path=str(folder / "history"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    fields = [Field(name=name, dtype=Float32) for name in feature_names()]
    view = FeatureView(
        name=VIEW,
        entities=[item],
        ttl=max_age,
        schema=[Field(name="item_id", dtype=String), *fields],
        source=source,
    )
    feast = FeatureStore(config=config)
    feast.apply([item, view])
    return feast


def _peak() -> float:
    """Most memory that the process ever held, in MB. Not getrusage's: that begins with what the
    parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return round(int(kilobytes) / 1024, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
