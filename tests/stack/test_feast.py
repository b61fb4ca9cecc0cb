"""Feast on the real Redis: what we read and write is what Feast reads and writes."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings

from contracts.errors import ServiceError, UsageError
from contracts.features import FEATURE_SERVICE, RANKED, DType, of_view
from contracts.moment import moment_features
from contracts.settings import Settings
from contracts.tables import Offline
from feast_engine.config import REPOSITORY
from feast_engine.connection import connect, connect_async
from feast_engine.historical import stored_features
from feast_engine.layout import layout_of
from feast_engine.reader import OnlineReader, ReadRequest, Status, SyncReader, ViewRows
from feast_engine.store import apply, materialize, open_store, quiet_feast
from feast_engine.writer import OnlineWriter
from tests.stack.feast_shop import (
    BIG_ID,
    DAY,
    HOUR,
    ITEMS,
    NOON,
    STATES,
    activity_rows,
    catalogue_rows,
    feast_at,
    pair_inputs,
    session_rows,
    session_writes,
    state,
    write_table,
    written,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own


@pytest.fixture(scope="module")
def shop(infrastructure: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A Feast project of its own on the stack's Redis: applied, with tables, materialised to noon."""
    folder = tmp_path_factory.mktemp("feast")
    shop = infrastructure.model_copy(
        update={
            "feast_project": "test_feast",
            "offline": str(folder / "offline"),
            "feast_registry": str(folder / "new/registry.db"),
        }
    )
    with pytest.raises(UsageError, match="apply"):
        open_store(shop)
    apply(shop)
    with pytest.raises(UsageError, match="no Parquet files"):
        materialize(shop, datetime.fromtimestamp(NOON / 1000, UTC))
    write_table(shop.offline, Offline.item_catalogue, catalogue_rows())
    write_table(shop.offline, Offline.item_activity, activity_rows())
    write_table(shop.offline, Offline.session, session_rows())
    reports: list[tuple[str, int, int]] = []
    materialize(shop, datetime.fromtimestamp(NOON / 1000, UTC), lambda *step: reports.append(step))
    assert reports[-1] == ("materialized", 2, 2)
    return shop


@pytest.fixture(scope="module")
def store(shop: Settings) -> Any:
    return open_store(shop)


@pytest.fixture(scope="module")
def client(shop: Settings) -> Iterator[Any]:
    with connect(shop) as client:
        yield client


@pytest.fixture(scope="module")
def pushed(shop: Settings, client: Any) -> None:
    """The sessions' last rows are online."""
    for session, whole in STATES.items():
        OnlineWriter(shop, client).write_many(session_writes([session], [whole]))


def feast_online(store: Any, view: str, key: str, ids: list[str]) -> dict[str, list[Any]]:
    with quiet_feast(), feast_at(NOON):
        answer: dict[str, list[Any]] = store.get_online_features(
            features=[f"{view}:{feature.name}" for feature in of_view(view)],
            entity_rows=[{key: entity} for entity in ids],
        ).to_dict()
    return answer


def assert_same(view: str, ours: ViewRows, feasts: dict[str, list[Any]]) -> None:
    """Cell by cell; Feast's None is what the reader calls missing."""
    missing: dict[DType, Any] = {
        DType.float32: math.nan, DType.int64: 0, DType.string: None,
        DType.list_int64: [], DType.list_string: [],
    }  # fmt: skip
    for feature in of_view(view):
        expected = [missing[feature.dtype] if v is None else v for v in feasts[feature.name]]
        if feature.dtype is DType.float32:
            np.testing.assert_array_equal(
                ours.columns[feature.name], np.array(expected, np.float32), feature.name
            )
        else:
            assert ours.columns[feature.name].tolist() == expected, feature.name


# --- online ---


@pytest.mark.parametrize("view", ["item_catalogue", "item_activity"])
def test_what_feast_materialized_reads_the_same(
    shop: Settings, store: Any, client: Any, view: str
) -> None:
    ids = [*ITEMS, "unknown", "-1"]
    [rows] = SyncReader(shop, client).read([ReadRequest(view, ids)], NOON)
    old = Status.MISSING if view == "item_activity" else Status.PRESENT
    assert rows.status.tolist() == [0, 0, 0, old, Status.MISSING, 0]
    assert_same(view, rows, feast_online(store, view, "item_id", ids))


numbers = itertools.count()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(written())
def test_writes_are_feasts_bytes_and_reads_feasts_values(
    shop: Settings, store: Any, client: Any, row: Any
) -> None:
    view, ids, times, columns = row
    # Feast passes over a frame that holds nothing at all
    assume(any(value is not None for cells in columns.values() for value in cells))
    ids = [f"{name}/{next(numbers)}" for name in ids]  # no row of an earlier example
    key = layout_of(view, shop.feast_project)
    join_key = key.view.join_keys[0]
    frame = pd.DataFrame(
        {
            join_key: ids,
            "event_timestamp": pd.to_datetime(times, unit="ms", utc=True),
            "created_timestamp": pd.to_datetime(times, unit="ms", utc=True),
            **{name: pd.Series(values, dtype=object) for name, values in columns.items()},
        }
    )
    with quiet_feast():
        store.write_to_online_store(view, frame)
    feasts = [client.hgetall(key.key(name)) for name in ids]
    client.delete(*(key.key(name) for name in ids))
    OnlineWriter(shop, client).write(view, ids, times, columns)
    assert [client.hgetall(key.key(name)) for name in ids] == feasts

    [rows] = SyncReader(shop, client).read([ReadRequest(view, ids)], NOON)
    assert not rows.status.any()
    assert_same(view, rows, feast_online(store, view, join_key, ids))


def test_a_push_is_the_same_bytes_and_keeps_both_views(
    shop: Settings, store: Any, client: Any
) -> None:
    whole = STATES["now"]
    row = next(row for row in reversed(session_rows()) if row["session_id"] == "now")
    frame = pd.DataFrame([{**row, "session_id": "push"}])
    for name in ("event_timestamp", "created_timestamp"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    with quiet_feast():
        store.push("session_push", frame)
    key = layout_of("session", shop.feast_project).key("push")
    pushed = client.hgetall(key)
    client.delete(key)
    session, context = session_writes(["push"], [whole])
    writer = OnlineWriter(shop, client)
    writer.write_many([context])
    writer.write_many([session])  # and loses nothing of the other view
    assert client.hgetall(key) == pushed
    assert 0 < client.ttl(key) <= 86_400


def test_a_late_event_replaces_a_state_of_the_same_time(shop: Settings, client: Any) -> None:
    """Feast would pass over a row that is not newer."""
    writer = OnlineWriter(shop, client)
    writer.write_many(session_writes(["late"], [state((10, "plain"))]))
    writer.write_many(session_writes(["late"], [state((20, "ü☃"), (10, "plain"))]))
    [rows] = SyncReader(shop, client).read([ReadRequest("session", ["late"])], NOON)
    assert rows.columns["event_item"][0] == ["ü☃", "plain"]


def test_items_outlive_sessions(shop: Settings, client: Any) -> None:
    assert client.ttl(layout_of("item_catalogue", shop.feast_project).key("plain")) > 86_400 * 29


def test_async_reads_are_the_same_and_keep_their_limit(
    shop: Settings, client: Any, pushed: None
) -> None:
    requests = [
        ReadRequest("item_activity", ITEMS, ["views_7d"]),
        ReadRequest("item_catalogue", ITEMS, ["price", "brand"]),
        ReadRequest("session", ["now", "gone"], ["event_item"]),
    ]
    expected = SyncReader(shop, client).read(requests, NOON)
    assert expected[2].status.tolist() == [Status.PRESENT, Status.TOO_OLD]

    async def read() -> list[ViewRows]:
        async with connect_async(shop) as own:
            reader = OnlineReader(shop, own)
            await reader.read(requests[:1], NOON)
            client.client_pause(1000)
            began = time.monotonic()
            with pytest.raises(ServiceError, match="does not answer"):
                await reader.read(requests[:1], NOON, 0.05)
            assert time.monotonic() - began < 0.5
            client.client_unpause()
            # the late reply of the first read is nobody's
            return await reader.read(requests, NOON)

    for ours, theirs in zip(asyncio.run(read()), expected, strict=True):
        assert ours.status.tolist() == theirs.status.tolist()
        for name, column in theirs.columns.items():
            np.testing.assert_array_equal(ours.columns[name], column)


def test_a_connection_that_was_closed_is_opened_again(shop: Settings, client: Any) -> None:
    async def read() -> ViewRows:
        async with connect_async(shop) as own:
            reader = OnlineReader(shop, own)
            await reader.read([ReadRequest("item_catalogue", ITEMS)], NOON)
            client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.05)
            return (await reader.read([ReadRequest("item_catalogue", ITEMS)], NOON))[0]

    assert not asyncio.run(read()).status.any()


# --- offline ---


def test_history_is_what_was_online_at_that_moment(
    shop: Settings, store: Any, client: Any, pushed: None
) -> None:
    """At noon: prices of eleven, activity known by then and not older than three days."""
    for view, key, ids in (
        ("item_catalogue", "item_id", [*ITEMS, "unknown"]),
        ("session", "session_id", [*STATES, "unknown"]),
        ("context", "session_id", [*STATES, "unknown"]),
    ):
        entities = pd.DataFrame({key: ids})
        entities["event_timestamp"] = pd.Timestamp(NOON, unit="ms", tz="UTC")
        past = stored_features(entities, store, [view])
        [rows] = SyncReader(shop, client).read([ReadRequest(view, ids)], NOON)
        for feature in of_view(view):
            np.testing.assert_array_equal(
                past[feature.name].to_numpy(), rows.columns[feature.name], feature.name
            )
            assert past[feature.name].dtype == rows.columns[feature.name].dtype


def test_rows_come_back_once_in_their_order(store: Any) -> None:
    moments = [NOON, NOON - 2 * HOUR, NOON - 6 * DAY, NOON]
    entities = pd.DataFrame(
        {
            "item_id": ["plain", "plain", "plain", "plain"] * 2,
            "event_timestamp": pd.to_datetime(moments * 2, unit="ms", utc=True),
            "label": range(8),
        },
        index=range(100, 108),
    )
    past = stored_features(entities, store, ["item_catalogue", "item_activity"])
    assert past.index.tolist() == entities.index.tolist()
    assert past["label"].tolist() == list(range(8))
    np.testing.assert_array_equal(past["price"], np.array([22, 12, np.nan, 22] * 2, np.float32))
    assert past["category_id"].tolist() == [BIG_ID - 2, BIG_ID - 2, 0, BIG_ID - 2] * 2


def test_history_knows_only_what_was_known(store: Any) -> None:
    """The row that holds from noon is known at three: until then yesterday's counts."""
    entities = pd.DataFrame({"item_id": ["plain"] * 2})
    entities["event_timestamp"] = pd.to_datetime([NOON, NOON + 3 * HOUR], unit="ms", utc=True)
    assert stored_features(entities, store, ["item_activity"])["views_1d"].tolist() == [1.0, 0.0]
    late = stored_features(entities, store, ["item_activity"], known_only=False)
    assert late["views_1d"].tolist() == [0.0, 0.0]


def test_history_of_nothing_is_nothing(store: Any) -> None:
    entities = pd.DataFrame(
        {"item_id": [], "event_timestamp": pd.to_datetime([], unit="ms", utc=True)}
    )
    assert stored_features(entities, store, ["item_catalogue"])["price"].dtype == np.float32


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"item_id": ["a"]}, "event_timestamp"),
        ({"item_id": ["a"], "event_timestamp": [pd.Timestamp(0)]}, "time zone"),
        ({"event_timestamp": [pd.Timestamp(0, tz="UTC")]}, "item_id"),
        ({"item_id": [None], "event_timestamp": [pd.Timestamp(0, tz="UTC")]}, "item_id"),
    ],
)
def test_history_refuses_what_it_cannot_ask(store: Any, columns: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        stored_features(pd.DataFrame(columns), store, ["item_catalogue"])


# --- on demand ---


def assert_pairs(answer: Any, expected: dict[str, np.ndarray[Any, Any]], at: int) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(answer[name], np.float32), values, name)
    for name, value in moment_features(at).items():
        assert set(answer[name]) == {value}


def test_feast_computes_the_pair_features_online(store: Any, pushed: None) -> None:
    frame, expected = pair_inputs(NOON)
    assert expected["times_in_session"].max() == 2
    with quiet_feast(), feast_at(NOON):
        answer = store.get_online_features(
            features=store.get_feature_service(FEATURE_SERVICE),
            entity_rows=frame.to_dict("records"),
        ).to_dict()
    assert_pairs(answer, expected, NOON)
    assert set(RANKED) <= set(answer)


def test_feast_computes_the_pair_features_of_the_past(store: Any) -> None:
    frame, expected = pair_inputs(NOON)
    frame["event_timestamp"] = pd.Timestamp(NOON, unit="ms", tz="UTC")
    with quiet_feast():
        answer = store.get_historical_features(
            features=store.get_feature_service(FEATURE_SERVICE), entity_df=frame
        ).to_df()
    answer = frame[["session_id", "item_id"]].merge(answer, validate="one_to_one")
    assert_pairs(answer, expected, NOON)
    assert set(RANKED) <= set(answer.columns)


# --- the command line ---


def feast(shop: Settings, *arguments: str) -> str:
    """As Feast's documentation says, with the settings as environment."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "feast"), "-c", "feature_repo",
         "-f", "feature_repo/environments/embedded.yaml", *arguments],
        cwd=REPOSITORY.parent, env={**os.environ, **shop.environment()},
        timeout=120, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_feasts_own_commands_work(shop: Settings, client: Any, tmp_path: Path) -> None:
    other = shop.model_copy(
        update={"feast_project": "test_cli", "feast_registry": str(tmp_path / "a/registry.db")}
    )
    assert "Created feature view item_activity" in feast(other, "plan")
    feast(other, "apply")
    planned = feast(other, "plan")
    assert "Created" not in planned
    assert "Updated" not in planned
    start, end = (
        datetime.fromtimestamp(NOON / 1000, UTC) + timedelta(days=days) for days in (-2, 0)
    )
    views = ["-v", "item_activity", "-v", "item_catalogue"]
    feast(other, "materialize", *views, f"{start:%Y-%m-%dT%H:%M:%S}", f"{end:%Y-%m-%dT%H:%M:%S}")
    [rows] = SyncReader(other, client).read([ReadRequest("item_catalogue", ITEMS)], NOON)
    assert rows.columns["price"].tolist() == [20.0, 21.0, 22.0, 23.0]


def test_materialize_tells_of_a_redis_that_is_down(shop: Settings) -> None:
    down = shop.model_copy(update={"redis": "127.0.0.1:1"})
    with pytest.raises(ServiceError, match="nextclick up"):
        materialize(down, datetime.fromtimestamp(NOON / 1000, UTC))
