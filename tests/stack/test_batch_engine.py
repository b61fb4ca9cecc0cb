"""`feast materialize` by our batch engine: the newest rows, as Feast would store them, recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml  # type: ignore[import-untyped]

from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings
from contracts.tables import Offline
from feast_engine import publications
from feast_engine.config import REPOSITORY, store_yaml
from feast_engine.connection import connect
from feast_engine.expiry import GONE
from feast_engine.layout import layout_of
from feast_engine.reader import ReadRequest, SyncReader, ViewRows
from feast_engine.store import apply, materialize, open_store, quiet_feast
from tests.stack.feast_shop import (
    DAY,
    HOUR,
    ITEMS,
    NOON,
    activity_rows,
    catalogue_rows,
    write_table,
)
from tests.stack.lone_redis import lone_redis

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own

EPOCH = datetime.fromtimestamp(0, UTC)
VIEW = "item_activity"


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with lone_redis(tmp_path_factory.mktemp("redis")) as settings:
        apply(settings)
        write_table(settings.offline, Offline.item_activity, activity_rows())
        write_table(settings.offline, Offline.item_catalogue, catalogue_rows())
        yield settings


@pytest.fixture
def client(shop: Settings) -> Iterator[Any]:
    with connect(shop) as client:
        client.flushall()
        shutil.rmtree(Path(shop.offline) / publications.FOLDER, ignore_errors=True)
        yield client


def read(shop: Settings, client: Any, view: str, until: int = NOON) -> ViewRows:
    return SyncReader(shop, client).read([ReadRequest(view, ITEMS)], until)[0]


def whole(shop: Settings, client: Any, view: str) -> list[dict[bytes, bytes]]:
    layout = layout_of(view, shop.feast_project)
    return [client.hgetall(layout.key(item)) for item in ITEMS]


def of_feast(shop: Settings, store: Any, view: str, until: int) -> None:
    """The same materialisation by Feast's own engine, row by row through protobuf. It does not ask
    when a row was created."""
    config = store.config.model_copy(deep=True)
    config.batch_engine_config = "local"
    from feast import FeatureStore

    with quiet_feast():
        FeatureStore(config=config).materialize(EPOCH, moment(until), feature_views=[view])


@pytest.mark.parametrize("view", ["item_activity", "item_catalogue"])
def test_the_bytes_are_feasts(shop: Settings, client: Any, view: str) -> None:
    store = open_store(shop)
    of_feast(shop, store, view, NOON + 3 * HOUR)
    expected = whole(shop, client, view)
    assert all(expected)
    client.flushall()
    with quiet_feast():
        store.materialize(EPOCH, moment(NOON + 3 * HOUR), feature_views=[view])
    assert whole(shop, client, view) == expected


def test_rows_that_were_not_known_by_the_end_are_not_there(shop: Settings, client: Any) -> None:
    """The row that holds from noon is known at three."""
    with quiet_feast():
        open_store(shop).materialize(EPOCH, moment(NOON), feature_views=[VIEW])
        assert read(shop, client, VIEW).event_times_ms[2] == NOON - DAY
        open_store(shop).materialize(EPOCH, moment(NOON + 3 * HOUR), feature_views=[VIEW])
    assert read(shop, client, VIEW).event_times_ms[2] == NOON


def test_an_earlier_end_takes_nothing_back(shop: Settings, client: Any) -> None:
    materialize(shop, moment(NOON + 3 * HOUR))
    before = whole(shop, client, VIEW)[:3]
    materialize(shop, moment(NOON - 2 * DAY))
    assert whole(shop, client, VIEW)[:3] == before
    rows = [each.rows for each in publications.read(shop.offline, VIEW)]
    assert rows == [3, 4]  # so many were sent; of `old` there is a row at the earlier end only


def test_what_becomes_visible_is_recorded(shop: Settings, client: Any) -> None:
    before = time.time_ns() // 1_000_000
    materialize(shop, moment(NOON))
    after = time.time_ns() // 1_000_000
    for view, count in (("item_activity", 3), ("item_catalogue", 4)):
        [made] = publications.read(shop.offline, view)
        assert (made.view, made.until_ms, made.rows) == (view, NOON, count)
        assert made.finished_ms is not None
        assert before <= made.started_ms <= made.finished_ms <= after


def test_a_materialisation_that_breaks_off_has_no_end(shop: Settings, client: Any) -> None:
    down = shop.model_copy(update={"redis": "127.0.0.1:1"})
    store = open_store(down)
    with quiet_feast(), pytest.raises(ServiceError, match="nextclick up"):
        store.materialize(EPOCH, moment(NOON), feature_views=[VIEW])
    [made] = publications.read(shop.offline, VIEW)
    assert (made.finished_ms, made.rows) == (None, 0)


def test_materialisation_renews_what_is_alive(shop: Settings, client: Any) -> None:
    materialize(shop, moment(NOON))
    key = layout_of(VIEW, shop.feast_project).key("plain")
    client.expire(key, 60)
    materialize(shop, moment(NOON))
    assert client.ttl(key) > 29 * 86_400


def test_items_that_are_gone_are_left_to_expire() -> None:
    from feast_engine.batch_engine import without_gone

    long = GONE // timedelta(milliseconds=1)
    table = pa.table(
        {
            "item_id": ["sold out", "gone", "for sale", "never said"],
            "available": pa.array([0, 0, 1, None], pa.int64()),
            "event_timestamp": pa.array(
                [NOON - long, NOON - long - 1, NOON - 9 * long, NOON - 9 * long],
                pa.timestamp("ms", "UTC"),
            ),
        }
    )
    kept = without_gone(table, moment(NOON))["item_id"].to_pylist()
    assert kept == ["sold out", "for sale", "never said"]
    others = table.drop_columns(["available"])
    assert without_gone(others, moment(NOON)) is others


def test_only_the_newest_rows_can_be_asked_for(shop: Settings) -> None:
    from feast.infra.common.materialization_job import MaterializationTask

    store = open_store(shop)
    task = MaterializationTask(
        shop.feast_project, store.get_feature_view(VIEW), EPOCH, moment(NOON), only_latest=False
    )
    with pytest.raises(UsageError, match="newest row"):
        store._get_provider().batch_engine.materialize(store.registry, task)


def test_feasts_own_commands_go_through_it(shop: Settings, client: Any, tmp_path: Path) -> None:
    # a registry that knows of no materialisation, where an incremental one begins
    fresh = shop.model_copy(update={"feast_registry": str(tmp_path / "registry.db")})
    apply(fresh)
    end = f"{moment(NOON):%Y-%m-%dT%H:%M:%S}"
    # as in feature_store.yaml: a registry beside the repository, wherever the command is run
    told = {**store_yaml(fresh), "registry": os.path.relpath(fresh.feast_registry, REPOSITORY)}
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(told))
    start = f"{moment(NOON - 3 * DAY):%Y-%m-%dT%H:%M:%S}"
    for yaml_file, *command in (
        ["feature_repo/environments/embedded.yaml", "materialize-incremental", "-v", "item_catalogue", end],
        ["feature_repo/environments/embedded.yaml", "materialize", "-v", VIEW, start, end],
        [str(plain), "materialize", start, end],  # of all views, and some have no table
    ):  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).parent / "feast"), "-c", "feature_repo",
             "-f", yaml_file, *command],
            cwd=REPOSITORY.parent, env={**os.environ, **fresh.environment()},
            timeout=120, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert read(shop, client, VIEW).present.tolist() == [True, True, True, False]
    assert read(shop, client, "item_catalogue").columns["price"].tolist() == [
        20.0,
        21.0,
        22.0,
        23.0,
    ]
    assert [made.until_ms for made in publications.read(shop.offline, VIEW)] == [NOON, NOON]
    assert publications.read(shop.offline, "item_windows") == []
