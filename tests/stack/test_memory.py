"""Bytes of a session and of an item, on a real Redis and a real Redis Cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from contracts.features import of_view
from contracts.settings import Settings
from feast_engine import memory
from feast_engine.connection import connect
from feast_engine.layout import layout_of
from feast_engine.writer import OnlineWriter
from tests.stack.lone_redis import lone_redis, redis_cluster

NOW = 1_790_000_000_000


@pytest.fixture(scope="module", params=[lone_redis, redis_cluster])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with request.param(tmp_path_factory.mktemp("redis")) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(shop: Settings) -> Iterator[Any]:
    with connect(shop) as client:
        client.set("nextclick", "a key of somebody else's")
        yield client


def write(shop: Settings, client: Any, view: str, count: int) -> None:
    columns = {feature.name: [1.0] * count for feature in of_view(view)}
    names = [f"{view}{number}" for number in range(count)]
    OnlineWriter(shop, client).write(view, names, [NOW] * count, columns)


def test_sessions_and_items_are_measured_apart(shop: Settings, client: Any) -> None:
    assert memory.memory_use(shop) == {}
    write(shop, client, "context", 3)
    write(shop, client, "item_activity", 250)
    found = memory.memory_use(shop)
    assert found is not None
    assert set(found) == {"session", "item"}
    layout = layout_of("context", shop.feast_project)
    # not all the same: an allocator rounds up, and each node of a cluster has one of its own
    each = [client.memory_usage(layout.key(f"context{number}"), samples=0) for number in range(3)]
    assert found["session"]["bytes"] == pytest.approx(sum(each) / 3, abs=1)
    assert {**found["session"], "bytes": 0} == {
        "bytes": 0, "measured": 3, "keys": 3, "exact": True
    }  # fmt: skip
    assert found["item"]["measured"] == memory.SAMPLE
    assert (found["item"]["keys"], found["item"]["exact"]) == (250, True)
    # twelve floats of five bytes under names of four, and the key
    assert 12 * 9 < found["item"]["bytes"] < 1000
    assert memory.lines(found)[0].startswith("session")
    assert "(3 measured of 3)" in memory.lines(found)[0]


def test_of_many_keys_a_part_is_looked_at(
    shop: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop, client, "item_activity", 3000)
    monkeypatch.setattr(memory, "SCANNED", 1000)
    found = memory.memory_use(shop)
    assert found is not None
    assert not found["item"]["exact"]
    assert 2000 < found["item"]["keys"] < 4000
    assert "of about" in memory.lines(found)[-1]
    assert memory.memory_use(shop, seconds=1e-9) in ({}, None)  # no time, no answer


def test_without_a_redis_there_is_nothing(shop: Settings) -> None:
    assert memory.memory_use(shop.model_copy(update={"redis": "127.0.0.1:1"}), 0.2) is None
    assert memory.lines(None) == []
