"""What Feast asks of its offline store besides joins: the newest rows, all rows, writing, limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.types import Float32, String

from contracts.errors import ServiceError, UsageError
from feast_engine.asof import asof_join
from feast_engine.database import Limits
from feast_engine.join_rule import JoinRule
from feast_engine.newest import newest_rows
from feast_engine.parquet import ParquetTable
from tests.feast_engine.feast_join import OURS, define, open_store, quiet
from tests.feast_engine.oracle import NOON, Case
from tests.feast_engine.worked_cases import HOUR, MICROSECOND, RULE

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own

STAMP = pa.timestamp("us", "UTC")


def prices(*rows: tuple[str | None, datetime, datetime, float]) -> pa.Table:
    items, events, created, values = zip(*rows, strict=True)
    return pa.table(
        {
            "item_id": pa.array(items, pa.string()),
            "event_timestamp": pa.array(events, STAMP),
            "created_timestamp": pa.array(created, STAMP),
            "price": pa.array(values, pa.float32()),
        }
    )


ROWS = prices(
    ("a", NOON - 2 * HOUR, NOON - 2 * HOUR, 1.0),
    ("a", NOON - HOUR, NOON + HOUR, 9.0),
    ("b", NOON - 3 * HOUR, NOON - 3 * HOUR, 5.0),
    (None, NOON - HOUR, NOON - HOUR, 7.0),
)


def opened(folder: Path, rule: JoinRule = RULE) -> Any:
    """A store with `view0` over ROWS, in `folder/history/0`."""
    store = open_store(folder, OURS)
    define(store, [Case(ROWS, (ROWS,), rule)], folder / "history")
    return store


def latest(store: Any, start: datetime, end: datetime) -> dict[str, float]:
    job = get_offline_store_from_config(store.config.offline_store).pull_latest_from_table_or_query(
        store.config, store.get_feature_view("view0").batch_source, ["item_id"], ["price"],
        "event_timestamp", "created_timestamp", start, end,
    )  # fmt: skip
    rows = job.to_arrow()
    assert rows.column_names == ["item_id", "price", "event_timestamp", "created_timestamp"]
    return dict(zip(rows["item_id"].to_pylist(), rows["price"].to_pylist(), strict=True))


# --- the newest rows ---


def test_the_newest_rows_are_those_known_at_the_end(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert latest(store, NOON - 3 * HOUR, NOON) == {"a": 1.0, "b": 5.0}
    assert latest(store, NOON - 3 * HOUR, NOON + HOUR) == {"a": 9.0, "b": 5.0}
    assert latest(store, NOON - 3 * HOUR + MICROSECOND, NOON) == {"a": 1.0}


def test_the_view_says_whether_late_rows_go_online(tmp_path: Path) -> None:
    store = opened(tmp_path, JoinRule(RULE.keys, RULE.features, as_known=False))
    assert latest(store, NOON - 3 * HOUR, NOON) == {"a": 9.0, "b": 5.0}


def test_a_table_without_keys_has_one_newest_row(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "one.parquet")
    table = ParquetTable(str(tmp_path / "one.parquet"))
    rule = JoinRule({}, ("price",))
    rows = newest_rows(table, rule, NOON, ["price"], Limits())
    assert rows["price"].to_pylist() == [7.0]


def test_all_rows_of_a_time_come_back(tmp_path: Path) -> None:
    store = opened(tmp_path)
    job = get_offline_store_from_config(store.config.offline_store).pull_all_from_table_or_query(
        store.config, store.get_feature_view("view0").batch_source, ["item_id"], ["price"],
        "event_timestamp", None, NOON - 2 * HOUR, NOON - HOUR,
    )  # fmt: skip
    assert sorted(job.to_arrow()["price"].to_pylist()) == [1.0, 7.0, 9.0]


# --- writing ---


def test_a_push_adds_a_file_to_a_folder(tmp_path: Path) -> None:
    store = opened(tmp_path)
    later = prices(("c", NOON, NOON, 3.0)).to_pandas()
    later["event_timestamp"] = later["event_timestamp"].dt.tz_localize(None)  # naive is UTC
    before = {path: path.read_bytes() for path in (tmp_path / "history/0").iterdir()}
    with quiet():
        store.write_to_offline_store("view0", later[["price", *later.columns[:-1]]])
    after = sorted((tmp_path / "history/0").iterdir())
    assert len(after) == 2
    assert all(path.read_bytes() == content for path, content in before.items())
    assert latest(store, NOON, NOON) == {"c": 3.0}


def test_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path, OURS)
    path = tmp_path / "one.parquet"
    pq.write_table(ROWS, path)
    define(store, [Case(ROWS, (ROWS,), RULE)], tmp_path / "history")
    view = store.get_feature_view("view0")
    view.batch_source.file_options.uri = str(path)
    write = get_offline_store_from_config(store.config.offline_store).offline_write_batch
    writers = [
        threading.Thread(
            target=write, args=(store.config, view, prices(("c", NOON, NOON, float(n))), None)
        )
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = pq.read_table(path)
    assert table.slice(0, ROWS.num_rows).equals(ROWS)
    assert sorted(table["price"].to_pylist()[ROWS.num_rows :]) == [float(n) for n in range(8)]
    assert {file.name for file in tmp_path.iterdir() if "tmp" in file.name} == set()


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    write = get_offline_store_from_config(store.config.offline_store).offline_write_batch
    view = store.get_feature_view("view0")
    with pytest.raises(UsageError, match="missing \\['price'\\]"):
        write(store.config, view, ROWS.drop_columns(["price"]), None)
    wrong = ROWS.set_column(3, "price", pa.array(["x"] * 4))
    with pytest.raises(UsageError, match="'price' does not fit"):
        write(store.config, view, wrong, None)


def asked(store: Any, **columns: Any) -> Any:
    frame = pd.DataFrame({"item_id": ["b"], "event_timestamp": [NOON], **columns})
    with quiet():
        return store.get_historical_features(entity_df=frame, features=["view0:price"])


def test_a_saved_data_set_is_what_was_joined(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for name in ("kept.parquet", "kept"):
        storage = SavedDatasetFileStorage(str(tmp_path / name))
        with quiet():
            saved = store.create_saved_dataset(asked(store), name, storage)
        assert saved.to_df()["price"].tolist() == [5.0]
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            asked(store).persist(storage)
        asked(store, label=[1]).persist(storage, allow_overwrite=True)
        assert pq.read_table(tmp_path / name)["label"].to_pylist() == [1]


def test_logs_of_a_service_keep_their_columns(tmp_path: Path) -> None:
    store = opened(tmp_path)
    logs = pa.table({"day": ["1/2", "1/2", None], "price": [1.0, 2.0, 3.0]})
    destination = FileLoggingDestination(path=str(tmp_path / "logs"), partition_by=["day"])
    write = get_offline_store_from_config(store.config.offline_store).write_logged_features
    write(store.config, logs, None, LoggingConfig(destination=destination), None)
    pq.write_table(logs, tmp_path / "more.parquet")
    write(
        store.config, tmp_path / "more.parquet", None, LoggingConfig(destination=destination), None
    )
    folders = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert folders == ["day=1%2F2", "day=None"]
    table = ParquetTable(str(tmp_path / "logs"))
    rows = table.take(np.array([0, 1]), ["day", "price"])
    assert table.schema.names == ["day", "price"]
    assert rows["day"].to_pylist() == ["1/2"] * 2


# --- what cannot be asked ---


def test_own_columns_stay_and_are_not_overwritten(tmp_path: Path) -> None:
    store = opened(tmp_path)
    kept = asked(store, brand=pd.Categorical(["x"]), created_timestamp=["own"]).to_df()
    assert kept.loc[0, ["brand", "created_timestamp", "price"]].tolist() == ["x", "own", 5.0]
    assert kept["brand"].dtype == "category"
    with pytest.raises(UsageError, match="'price' already"):
        asked(store, price=[1.0]).to_df()


def test_columns_and_keys_may_be_named_otherwise(tmp_path: Path) -> None:
    """In the files `id` and `p`; one view asked under two names, each with a key of its own."""
    store = open_store(tmp_path, OURS)
    pq.write_table(ROWS.rename_columns({"item_id": "id", "price": "p"}), tmp_path / "rows.parquet")
    source = FileSource(
        name="rows",
        path="rows.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        field_mapping={"id": "item_id", "p": "price"},
    )
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    fields = [Field(name="item_id", dtype=String), Field(name="price", dtype=Float32)]
    view = FeatureView(name="prices", entities=[item], schema=fields, source=source)
    renamed = [
        view.with_name(name).with_join_key_map({"item_id": f"{name}_id"}) for name in ("from", "to")
    ]
    service = FeatureService(name="ways", features=renamed)
    store.apply([item, view, service])
    frame = pd.DataFrame({"from_id": ["a"], "to_id": ["b"], "event_timestamp": [NOON]})
    with quiet():
        rows = store.get_historical_features(frame, service, full_feature_names=True).to_df()
    assert rows[["from__price", "to__price"]].to_numpy().tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ("SELECT 1", "expected a pandas DataFrame"),
        (None, "expected a pandas DataFrame"),
        (pd.DataFrame({"item_id": ["a"]}), "no column 'event_timestamp'"),
        (pd.DataFrame({"item_id": ["a"], "event_timestamp": ["soon"]}), "holds no times"),
        (pd.DataFrame({"event_timestamp": [NOON]}), "'item_id'"),
        (pd.DataFrame({"item_id": [1], "event_timestamp": [NOON]}), "no value would match"),
        (pd.DataFrame({"item_id": [["a", 1]], "event_timestamp": [NOON]}), "entity_df"),
    ],
)
def test_wrong_rows_are_told(tmp_path: Path, frame: Any, told: str) -> None:
    store = opened(tmp_path)
    with pytest.raises(UsageError, match=told), quiet():
        store.get_historical_features(entity_df=frame, features=["view0:price"]).to_df()


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for path in (tmp_path / "history/0").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no Parquet files"):
        asked(store).to_df()
    (tmp_path / "history/0/x.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match="not a Parquet table"):
        asked(store).to_df()


def test_a_tag_that_is_neither_is_told(tmp_path: Path) -> None:
    store = opened(tmp_path)
    view = store.get_feature_view("view0")
    view.tags = {"as_known": "no"}
    store.apply([view])
    with pytest.raises(UsageError, match="true or false"):
        asked(store).to_df()


# --- limits ---


def big(folder: Path, rows: int) -> tuple[pa.Table, ParquetTable]:
    random = np.random.default_rng(0)
    times = pa.array(random.integers(0, 10**15, rows), STAMP)
    keys = pa.array(random.integers(0, rows // 10, rows))
    pq.write_table(
        pa.table({"key": keys, "event_timestamp": times, "value": keys}), folder / "big.parquet"
    )
    return pa.table({"key": keys, "event_timestamp": times}), ParquetTable(
        str(folder / "big.parquet")
    )


@contextmanager
def spilled(folder: Path) -> Iterator[list[int]]:
    """The most bytes that were seen in a folder."""
    most, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.002):
            with suppress(OSError):  # a file that went meanwhile
                files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
                most[0] = max(most[0], sum(files))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield most
    finally:
        done.set()
        watch.join()


BIG = JoinRule({"key": "key"}, ("value",), created=None)


def test_a_join_that_does_not_fit_into_memory_spills(tmp_path: Path) -> None:
    entity, table = big(tmp_path, 300_000)
    spill = tmp_path / "spill"
    spill.mkdir()
    small = Limits(memory="24MB", folder=spill, threads=1)
    with spilled(spill) as most:
        assert asof_join(entity, table, BIG, limits=small)["value"].equals(entity["key"])
    assert most[0] > 1_000_000
    assert list(spill.iterdir()) == []


def test_a_join_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    entity, table = big(tmp_path, 300_000)
    with pytest.raises(ServiceError, match="timeout_seconds"):
        asof_join(entity, table, BIG, limits=Limits(seconds=0.001))


def test_limits_that_make_no_sense_are_told(tmp_path: Path) -> None:
    entity, table = big(tmp_path, 10)
    with pytest.raises(UsageError, match="limits"):
        asof_join(entity, table, BIG, limits=Limits(memory="much"))


def test_the_yaml_sets_the_limits(tmp_path: Path) -> None:
    config = open_store(tmp_path, OURS).config.offline_store
    config = type(config)(memory_limit="3GB", temp_folder="/x", threads=2, timeout_seconds=5)
    assert config.limits() == Limits("3GB", Path("/x"), 2, 5.0)
    assert config.limits(1).seconds == 1


def test_the_store_is_found_by_its_name(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert isinstance(store, FeatureStore)
    found = get_offline_store_from_config(store.config.offline_store)
    assert f"{type(found).__module__}.{type(found).__name__}" == OURS
