"""The services' files and commands, as far as they can be judged without starting them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.settings import Settings
from local_stack import kafka, redis, triton
from local_stack.services import DEFINITIONS, in_order


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"home": tmp_path / "home", "models": tmp_path / "models", "kafka_port": 29092}
    )


def test_kafkas_properties_follow_the_settings(settings: Settings) -> None:
    lines = kafka.properties(settings).splitlines()
    assert "listeners=PLAINTEXT://127.0.0.1:29092,CONTROLLER://127.0.0.1:19093" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:29092" in lines
    assert f"log.dirs={settings.home}/kafka/data" in lines
    assert not [line for line in lines if "$" in line]


def test_redis_keeps_what_is_written_and_asks_for_the_password(tmp_path: Path) -> None:
    plain = redis.configuration(Settings.model_validate({"home": tmp_path}), tmp_path)
    assert "appendonly yes" in plain
    assert "bind 127.0.0.1" in plain
    assert "requirepass" not in plain
    secret = Settings.model_validate({"home": tmp_path, "redis_password": "geheim"})
    assert 'requirepass "geheim"' in redis.configuration(secret, tmp_path)


def test_triton_loads_the_ranker_only_when_there_is_one(settings: Settings) -> None:
    load = "--load-model=ranker"
    assert load not in triton.triton(settings).command
    (settings.models / "ranker").mkdir(parents=True)
    (settings.models / "ranker/config.pbtxt").touch()
    assert load in triton.triton(settings).command


def test_only_this_stacks_regions_are_removed(settings: Settings, tmp_path: Path) -> None:
    other = Settings.model_validate({"home": tmp_path / "other"})
    shared = tmp_path / "shm"
    shared.mkdir()
    for owner in (settings, other):
        (shared / f"{triton.region_prefix(owner)}0001").touch()
    (shared / "psm_of_someone").touch()
    assert triton.remove_regions(settings, shared) == 1
    left = sorted(path.name for path in shared.iterdir())
    assert left == sorted([f"{triton.region_prefix(other)}0001", "psm_of_someone"])


def test_zero_rows_have_the_models_shape() -> None:
    metadata = {"inputs": [{"name": "input__0", "datatype": "FP32", "shape": [-1, 3]}]}
    expected = {"name": "input__0", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]}
    assert triton.zero_rows(metadata) == {"inputs": [expected]}


@given(st.permutations(list(DEFINITIONS)), st.integers(0, len(DEFINITIONS)))
def test_services_start_in_one_order(names: list[str], count: int) -> None:
    chosen = in_order(names[:count])
    assert sorted(chosen) == sorted(names[:count])
    assert chosen == [name for name in DEFINITIONS if name in chosen]


def test_an_unknown_service_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="'redsi' is no service; there are: redis, kafka"):
        in_order(["redsi"])


def test_every_service_has_ports_and_needs_only_earlier_ones(settings: Settings) -> None:
    earlier: set[str] = set()
    for name, define in DEFINITIONS.items():
        service = define(settings)
        assert service.name == name
        assert service.ports
        assert set(service.needs) <= earlier
        assert all(getattr(settings, setting) == port for setting, port in service.ports.items())
        earlier.add(name)
