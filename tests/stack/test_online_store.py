"""Feast's SDK on our online store: what it reads is not too old, what it writes is guarded."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.features import VIEWS, DType, of_view
from contracts.settings import Settings
from feast_engine import reader
from feast_engine.connection import connect, connect_async
from feast_engine.layout import layout_of
from feast_engine.reader import OnlineReader, ReadRequest, Status, SyncReader, ViewRows
from feast_engine.store import apply, open_store, quiet_feast
from feast_engine.writer import OnlineWriter
from tests.stack.feast_shop import NOON, feast_at, written
from tests.stack.lone_redis import lone_redis

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own

MISSING: dict[DType, Any] = {
    DType.float32: math.nan, DType.int64: 0, DType.string: None,
    DType.list_int64: [], DType.list_string: [],
}  # fmt: skip
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with lone_redis(tmp_path_factory.mktemp("redis")) as settings:
        apply(settings)
        yield settings


@pytest.fixture(scope="module")
def store(shop: Settings) -> Any:
    return open_store(shop)


@pytest.fixture(scope="module")
def client(shop: Settings) -> Iterator[Any]:
    with connect(shop) as client:
        yield client


def request_of(view: str, ids: list[str]) -> dict[str, Any]:
    [key] = VIEWS[view].join_keys
    return {
        "features": [f"{view}:{feature.name}" for feature in of_view(view)],
        "entity_rows": [{key: entity} for entity in ids],
    }


Answer = tuple[dict[str, list[Any]], dict[str, list[str]]]
"""By feature, values and statuses."""


def parts(answer: Any) -> Answer:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    names = answer.proto.metadata.feature_names.val
    columns = zip(names, answer.proto.results, strict=True)
    statuses = {name: [FieldStatus.Name(s) for s in column.statuses] for name, column in columns}
    return answer.to_dict(), statuses


def feasts(store: Any, view: str, ids: list[str], moment_ms: int) -> Answer:
    with quiet_feast(), feast_at(moment_ms):
        return parts(store.get_online_features(**request_of(view, ids)))


def ours(shop: Settings, client: Any, view: str, ids: list[str], moment_ms: int) -> ViewRows:
    return SyncReader(shop, client).read([ReadRequest(view, ids)], moment_ms)[0]


def assert_same(view: str, rows: ViewRows, answer: Answer) -> None:
    """Cell by cell, and why a cell is missing."""
    values, statuses = answer
    names = {
        Status.PRESENT: "PRESENT", Status.MISSING: "NOT_FOUND", Status.TOO_OLD: "OUTSIDE_MAX_AGE",
    }  # fmt: skip
    expected_statuses = [names[Status(status)] for status in rows.status.tolist()]
    for feature in of_view(view):
        expected = [MISSING[feature.dtype] if v is None else v for v in values[feature.name]]
        column = rows.columns[feature.name]
        if feature.dtype is DType.float32:
            np.testing.assert_array_equal(column, np.array(expected, np.float32), feature.name)
        else:
            assert column.tolist() == expected, feature.name
        assert statuses[feature.name] == expected_statuses, feature.name


runs = itertools.count()
AGES = st.sampled_from([-1, 0, 1])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(row=written(), over=st.lists(AGES, min_size=4, max_size=4), more=st.booleans())
def test_the_reader_gives_what_feast_gives(
    shop: Settings, store: Any, client: Any, row: Any, over: list[int], more: bool
) -> None:
    """Of rows at their maximum age, a millisecond younger and a millisecond older; unknown ids."""
    view, ids, _, columns = row
    age = VIEWS[view].max_age or timedelta(days=400)
    times = [NOON - (age // MILLISECOND + over[place]) for place in range(len(ids))]
    names = [f"{name}/{next(runs)}" for name in ids]  # no row of an earlier example
    OnlineWriter(shop, client).write(view, names, times, columns)
    asked = [*names, "unknown", "-1", "", names[0]] if more else names
    rows = ours(shop, client, view, asked, NOON)
    assert_same(view, rows, feasts(store, view, asked, NOON))
    old = [VIEWS[view].max_age is not None and extra > 0 for extra in over[: len(names)]]
    assert (rows.status[: len(names)] == Status.TOO_OLD).tolist() == old
    assert rows.event_times_ms[: len(names)].tolist() == times


def some(view: str, value: float) -> dict[str, list[Any]]:
    by_type: dict[DType, Any] = {
        DType.float32: value, DType.int64: int(value), DType.string: str(value),
        DType.list_int64: [int(value)], DType.list_string: [str(value)],
    }  # fmt: skip
    return {feature.name: [by_type[feature.dtype]] for feature in of_view(view)}


def test_asyncio_reads_of_feast_are_the_same(shop: Settings, store: Any, client: Any) -> None:
    age = (VIEWS["session"].max_age or timedelta()) // MILLISECOND
    writer = OnlineWriter(shop, client)
    for name, before in (("young", 0), ("last", age), ("old", age + 1)):
        for view in ("session", "context"):
            writer.write(view, [name], [NOON - before], some(view, 3.0))
    ids = ["young", "last", "old", "unknown"]
    both = [f"{view}:{f.name}" for view in ("session", "context") for f in of_view(view)]
    rows = [{"session_id": name} for name in ids]

    async def read() -> tuple[Any, list[ViewRows]]:
        own = connect_async(shop)
        try:
            answer = await store.get_online_features_async(features=both, entity_rows=rows)
            requests = [ReadRequest(view, ids) for view in ("session", "context")]
            return answer, await OnlineReader(shop, own).read(requests, NOON)
        finally:
            await own.aclose()
            await store.close()

    with quiet_feast(), feast_at(NOON):
        answer, read_rows = asyncio.run(read())
    for view, found in zip(("session", "context"), read_rows, strict=True):
        assert found.status.tolist() == [0, 0, Status.TOO_OLD, Status.MISSING]
        assert_same(view, found, parts(answer))


def test_a_read_of_many_and_of_none(shop: Settings, client: Any) -> None:
    """More rows than go in one piece, in their order; none at all between others."""
    many = [f"many{number}" for number in range(2 * reader.PIECE + 7)]
    columns = {
        "device": [float(n + 1) for n in range(len(many))],
        "traffic_source": [1.0] * len(many),
    }
    OnlineWriter(shop, client).write("context", many, [NOON] * len(many), columns)
    requests = [
        ReadRequest("context", ["unknown", *many[::-1]], ["device"]),
        ReadRequest("session", []),
        ReadRequest("context", many[:2]),
    ]

    async def read() -> list[ViewRows]:
        own = connect_async(shop)
        try:
            return await OnlineReader(shop, own).read(requests, NOON)
        finally:
            await own.aclose()

    for found in (SyncReader(shop, client).read(requests, NOON), asyncio.run(read())):
        assert found[0].columns["device"][1:].tolist() == columns["device"][::-1]
        assert found[0].status.tolist() == [Status.MISSING] + [Status.PRESENT] * len(many)
        assert found[0].event_times_ms.tolist() == [-1] + [NOON] * len(many)
        assert len(found[1].status) == 0
        assert found[2].columns["traffic_source"].tolist() == [1.0, 1.0]


def test_an_items_fields_are_found_without_a_search(shop: Settings, client: Any) -> None:
    """In a hash table: what the reader's time for hundreds of items rests on."""
    for view in ("item_catalogue", "item_activity"):
        OnlineWriter(shop, client).write(view, ["quick"], [NOON], some(view, 1.0))
    key = layout_of("item_catalogue", shop.feast_project).key("quick")
    assert client.object("encoding", key) == b"hashtable"


def test_full_names_and_stores_own_reads_know_the_age(
    shop: Settings, store: Any, client: Any
) -> None:
    OnlineWriter(shop, client).write("context", ["aged"], [NOON - 10**8], some("context", 2.0))
    with quiet_feast(), feast_at(NOON):
        answer = parts(
            store.get_online_features(**request_of("context", ["aged"]), full_feature_names=True)
        )
    assert answer[1]["context__device"] == ["OUTSIDE_MAX_AGE"]
    assert answer[0]["context__device"] == [None]

    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    keys = [
        EntityKey(join_keys=["session_id"], entity_values=[Value(string_val=name)])
        for name in ("aged", "unknown")
    ]
    view = store.get_feature_view("context")
    own = store._get_provider().online_store
    with feast_at(NOON):
        assert [values for _, values in own.online_read(store.config, view, keys)] == [None, None]
    with feast_at(NOON - 10**8):
        [(time, values), (no_time, _)] = own.online_read(store.config, view, keys)
    assert (time, no_time) == (datetime.fromtimestamp((NOON - 10**8) / 1000, UTC), None)
    assert values["device"].float_val == 2.0


def frame(ids: list[str], times: list[int], values: list[float]) -> pd.DataFrame:
    stamps = pd.to_datetime(times, unit="ms", utc=True)
    columns = {
        feature.name: [some("context", value)[feature.name][0] for value in values]
        for feature in of_view("context")
    }
    return pd.DataFrame(
        {"session_id": ids, "event_timestamp": stamps, "created_timestamp": stamps, **columns}
    )


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_feast_writes_never_replaces_a_newer_row(
    shop: Settings, store: Any, client: Any, asynchronous: bool
) -> None:
    """Also not within one call; a row of the same time replaces, and the hash gets its life."""
    name = f"guarded-{asynchronous}"
    key = layout_of("context", shop.feast_project).key(name)

    def write(*rows: tuple[int, float]) -> float:
        data = frame([name] * len(rows), [time for time, _ in rows], [value for _, value in rows])
        with quiet_feast():
            if asynchronous:
                asyncio.run(_write_async(store, data))
            else:
                store.write_to_online_store("context", data)
        found = ours(shop, client, "context", [name], NOON)
        return float(found.columns["device"][0])

    assert write((NOON, 1.0)) == 1.0
    assert 0 < client.ttl(key) <= 86_400
    assert write((NOON - 1, 2.0)) == 1.0
    assert write((NOON, 3.0)) == 3.0
    assert write((NOON + 2, 4.0), (NOON + 1, 5.0)) == 4.0
    OnlineWriter(shop, client).write("context", [name], [NOON + 1], some("context", 6.0))
    assert write((NOON + 1, 7.0)) == 4.0


async def _write_async(store: Any, data: pd.DataFrame) -> None:
    try:
        await store.write_to_online_store_async("context", data)
    finally:
        await store.close()


def test_a_push_is_guarded(shop: Settings, store: Any, client: Any) -> None:
    def push(time: int, value: float) -> None:
        columns = {**some("session", value), **some("context", value)}
        stamp = pd.to_datetime([time], unit="ms", utc=True)
        data = {"session_id": ["pushed"], "event_timestamp": stamp, "created_timestamp": stamp}
        with quiet_feast():
            store.push("session_push", pd.DataFrame({**data, **columns}))

    push(NOON, 1.0)
    push(NOON - 1, 2.0)
    for view in ("session", "context"):
        assert_same(
            view,
            ours(shop, client, view, ["pushed"], NOON),
            (some(view, 1.0), {name: ["PRESENT"] for name in some(view, 1.0)}),
        )


def test_writes_without_the_rule_are_refused(shop: Settings) -> None:
    from feast_engine.online_store import GuardedRedisOnlineStore, GuardedRedisOnlineStoreConfig

    with pytest.raises(ValueError, match="skip_dedup"):
        GuardedRedisOnlineStoreConfig(skip_dedup=True)
    with pytest.raises(UsageError, match="precompute_online"):
        GuardedRedisOnlineStore()._try_precomputed_fast_path()
