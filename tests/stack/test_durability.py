"""What a real Redis would remember, and how it is seen that one has restarted."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from benchmarks.breaking import cut_unconfirmed
from benchmarks.valkey import server
from contracts.settings import Settings
from feast_engine.connection import connect
from orchestrator.consumer import durability
from tests.stack.conftest import free_settings
from tests.stack.lone_redis import redis_cluster


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return free_settings(tmp_path)


def test_what_was_confirmed_outlives_a_power_cut_in_another_life(settings: Settings) -> None:
    with server(settings):
        client = connect(settings)
        first = durability.life(client)
        assert durability.life(connect(settings)) == first
        client.set("confirmed", 1)
        assert durability.confirm(connect(settings, 20.0), "shop")
        client.set("not confirmed", 1)
    assert cut_unconfirmed(settings.home / "redis") > 0
    with server(settings):
        assert client.get("confirmed") == b"1"
        assert client.get("not confirmed") is None
        assert durability.life(client) != first


def test_a_redis_that_keeps_no_file_says_so(settings: Settings) -> None:
    with server(settings):
        client = connect(settings)
        assert isinstance(client, redis.Redis)
        client.config_set("appendonly", "no")
        assert not durability.confirm(client, "shop")


def test_a_cluster_confirms_by_all_its_primaries(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as settings:
        client = connect(settings, 20.0)
        lives = durability.life(client)
        assert len(set(lives.split(","))) == 2
        fences = list(durability._fences(client, "shop"))
        assert len({str(node) for node, _ in fences}) == len({key for _, key in fences}) == 2
        assert not durability.confirm(client, "shop")  # these two keep no file
        for node, _ in fences:
            node.config_set("appendonly", "yes")
        assert durability.confirm(client, "shop")
