"""The offline store on S3, served on this machine by SeaweedFS from a wheel."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.repo_config import RepoConfig
from feast.types import Float32, String
from pyarrow import fs

from benchmarks.join import compare
from benchmarks.join_data import Size
from contracts.errors import ServiceError, UsageError
from feast_engine.asof import asof_join
from feast_engine.join_rule import JoinRule
from feast_engine.parquet import ParquetTable
from tests.feast_engine.feast_join import OURS, quiet
from tests.stack.conftest import free_ports

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEED = Path(sys.executable).with_name("weed")
START_SECONDS = 60
KEY, SECRET = "test-key", "test-secret"
PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class Bucket:
    endpoint: str
    server: subprocess.Popen[bytes]

    def filesystem(self) -> Any:
        return fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, endpoint_override=self.endpoint,
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip


@contextmanager
def seaweed(folder: Path) -> Iterator[Bucket]:
    """An S3 server of its own. Skips where the wheel's program cannot run at all."""
    ports = free_ports(2 * len(PARTS))
    listed = dict(
        zip([f"{part}.port{kind}" for part in PARTS for kind in ("", ".grpc")], ports, strict=True)
    )
    rights = [
        {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": rights}))
    (folder / "data").mkdir()
    command = [
        str(WEED), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", f"-s3.config={folder / 's3.json'}", "-master.volumeSizeLimitMB=64",
        "-volume.max=50", "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports, and not looked at
        *(f"-{name}={port}" for name, port in listed.items()),
    ]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        bucket = Bucket(f"http://127.0.0.1:{listed['s3.port']}", server)
        _wait(bucket, folder / "weed.log")
        yield bucket
    finally:
        server.kill()
        server.wait(10)


def _wait(bucket: Bucket, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and bucket.server.poll() is None:
        try:
            bucket.filesystem().create_dir("lake")
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"SeaweedFS did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with ExitStack() as held:
        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield held.enter_context(seaweed(tmp_path_factory.mktemp("weed")))


def history(*rows: tuple[str, datetime, datetime, float]) -> pa.Table:
    items, events, created, prices = zip(*rows, strict=True)
    stamp = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "item_id": pa.array(items),
            "event_timestamp": pa.array(events, stamp),
            "created_timestamp": pa.array(created, stamp),
            "price": pa.array(prices, pa.float32()),
        }
    )


FIRST = history(("a", NOON - 2 * HOUR, NOON - 2 * HOUR, 1.0), ("b", NOON - HOUR, NOON + HOUR, 5.0))
SECOND = history(("a", NOON - HOUR, NOON - HOUR, 2.0))


@pytest.fixture(scope="module")
def store(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A view over s3://lake/prices, which holds FIRST."""
    filesystem, folder = bucket.filesystem(), tmp_path_factory.mktemp("repo")
    pq.write_table(FIRST, "lake/prices/part-0.parquet", filesystem=filesystem)
    config = RepoConfig(
        project="s3",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": OURS, "s3_endpoint": bucket.endpoint, "s3_region": "us-east-1"},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        # else Feast's own batch engine asks for all rows and picks the newest itself
        materialization_config={"pull_latest_features": True},
    )
    config.repo_path = folder
    store = FeatureStore(config=config)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    source = FileSource(
        name="prices",
        path="s3://lake/prices",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    schema = [Field(name="item_id", dtype=String), Field(name="price", dtype=Float32)]
    view = FeatureView(
        name="prices", entities=[item], ttl=timedelta(0), schema=schema, source=source
    )
    store.apply([item, view])
    return store


def prices(store: Any, *rows: tuple[str, datetime]) -> Any:
    frame = pd.DataFrame(rows, columns=["item_id", "event_timestamp"])
    with quiet():
        return store.get_historical_features(entity_df=frame, features=["prices:price"])


def test_the_join_reads_s3_and_what_was_written_there(store: Any, bucket: Bucket) -> None:
    asked = [
        ("b", NOON),
        ("a", NOON),
        ("b", NOON + HOUR),
        ("a", NOON - HOUR - timedelta(microseconds=1)),
    ]
    assert prices(store, *asked).to_arrow()["price"].to_pylist() == [None, 1.0, 5.0, 1.0]
    with quiet():
        store.write_to_offline_store("prices", SECOND.to_pandas())
    assert prices(store, *asked).to_arrow()["price"].to_pylist() == [None, 2.0, 5.0, 1.0]
    files = bucket.filesystem().get_file_info(fs.FileSelector("lake/prices"))
    assert len(files) == 2, "the first file was written anew"


def test_what_is_newest_goes_online_from_s3(store: Any) -> None:
    with quiet():
        store.materialize(NOON - 5 * HOUR, NOON + timedelta(minutes=1))
        rows = [{"item_id": item} for item in ("a", "b")]
        online = store.get_online_features(["prices:price"], rows).to_dict()
    assert online["price"] == [2.0, None], "b was created later"


def test_a_saved_data_set_lies_on_s3(store: Any, bucket: Bucket) -> None:
    asked = prices(store, ("b", NOON + HOUR), ("c", NOON))
    with quiet():
        saved = store.create_saved_dataset(
            asked, "kept", SavedDatasetFileStorage("s3://lake/kept.parquet")
        )
    assert saved.to_df().sort_values("item_id")["price"].fillna(-1).tolist() == [5.0, -1.0]
    assert pq.read_table("lake/kept.parquet", filesystem=bucket.filesystem()).num_rows == 2


def test_rows_cannot_be_added_to_one_file_on_s3(store: Any, bucket: Bucket) -> None:
    pq.write_table(FIRST, "lake/one.parquet", filesystem=bucket.filesystem())
    view = store.get_feature_view("prices")
    view.batch_source.file_options.uri = "s3://lake/one.parquet"
    provider = store._get_provider()
    with pytest.raises(UsageError, match="name a folder"):
        provider.offline_store.offline_write_batch(store.config, view, SECOND, None)


def test_row_groups_outside_the_time_are_not_read(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = history(*(("a", NOON + n * HOUR, NOON + n * HOUR, float(n)) for n in range(100)))
    filesystem = bucket.filesystem()
    pq.write_table(rows, "lake/groups/part-0.parquet", filesystem=filesystem, row_group_size=10)
    table = ParquetTable("lake/groups", filesystem)
    moment = pa.array([NOON + 25 * HOUR], pa.timestamp("us", "UTC"))
    asked = pa.table({"item_id": ["a"], "event_timestamp": moment})
    rule = JoinRule({"item_id": "item_id"}, ("price",), max_age=3 * HOUR)
    read: list[int] = []

    def groups(ranges: Any) -> Any:
        found = ParquetTable._groups(table, ranges)
        read.extend(rows for _, rows in found[1])
        return found

    monkeypatch.setattr(table, "_groups", groups)
    assert asof_join(asked, table, rule)["price"].to_pylist() == [25.0]
    assert read == [10]


def test_the_benchmark_finds_the_stores_alike() -> None:
    document = compare(Size.of(2_000, 20_000, None, 1), max_age_days=7, rounds=1)
    assert document["differing"] == 0
    assert document["rows_out"] == document["rows_in"] == 2_000
    assert document["seconds"] > 0
    assert document["feast_duckdb_seconds"] > 0


def test_a_server_that_is_gone_is_told_in_time(store: Any, bucket: Bucket) -> None:
    """Last: it is gone for the others too."""
    job = prices(store, ("a", NOON))
    bucket.server.kill()
    bucket.server.wait(10)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="lake/prices"):
        job.to_arrow()
    assert time.monotonic() - began < 60
