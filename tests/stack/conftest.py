"""A stack of its own for the tests: free ports, a temporary state folder, the checkout's tools."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import Settings
from local_stack import stack
from local_stack.cli.progress import StepProgress
from local_stack.data.generate import Shop, write_shop
from local_stack.ingest import ingest
from local_stack.rebuild import STEPS, rebuild
from local_stack.services import INFRASTRUCTURE
from training.train import Options

PORTS = tuple(name for name in Settings.model_fields if name.endswith("_port"))


SHARED = ("trained", "infrastructure")
"""Stacks that tests share: whose tests run on one worker, for a stack is started once a worker, and
some tests take its parts away."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `--dist loadgroup`: those of a shared stack, else those of a file."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        shared = next((name for name in SHARED if name in fixtures), item.path.name)
        item.add_marker(pytest.mark.xdist_group(shared))


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on now, each another one."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


ROOMY = {
    "deadline_ms": 4000,
    "session_budget_ms": 800,
    "candidates_budget_ms": 800,
    "features_budget_ms": 800,
    "ranking_budget_ms": 1200,
}
"""What is tested is what an answer lacks when a part is away, not how fast a busy machine is."""


def free_settings(folder: Path) -> Settings:
    """Settings of a stack of one's own in `folder`."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    home = folder / "home"
    return Settings.model_validate({"home": home, "models": home / "models", **ports, **ROOMY})


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Redis, Kafka, MLflow and Triton, up and empty; Triton's models are in `settings.models`."""
    settings = free_settings(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(settings, only=INFRASTRUCTURE, report=print)
        yield settings
    finally:
        stack.down(settings)


SHOP_ITEMS, SHOP_SEED, SHOP_DAYS = 300, 7, 30


@pytest.fixture(scope="session")
def shop_end() -> int:
    """When the planted shop's history ends: an hour ago, so that nothing lies in the future."""
    return int(time.time() * 1000) - 3_600_000


@pytest.fixture(scope="session")
def shop(shop_end: int) -> Shop:
    """The planted shop of the trained stack: what follows what in it is known."""
    return Shop.of(SHOP_SEED, SHOP_ITEMS, SHOP_DAYS, shop_end)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shop_end: int) -> Iterator[Settings]:
    """The whole stack with a live release, made from the planted shop by the product's own steps."""
    folder = tmp_path_factory.mktemp("trained")
    settings = free_settings(folder)
    file = folder / "shop.parquet"
    write_shop(file, SHOP_SEED, sessions=4000, items=SHOP_ITEMS, days=SHOP_DAYS, end_ms=shop_end)
    try:
        stack.up(settings, report=print)
        with StepProgress(2 + STEPS) as progress:
            ingest(settings, file, progress)
            rebuild(settings, progress, Options(queries=4000), activate_it=True)
        yield settings
    finally:
        stack.down(settings)


@pytest.fixture(scope="module")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Folders for Spark's jobs, and no server."""
    home = tmp_path_factory.mktemp("spark")
    return Settings.model_validate({"home": home, "spark_memory": "1g"})


@pytest.fixture(scope="module")
def spark(spark_home: Settings) -> Iterator[Any]:
    from spark_jobs.session import spark_session

    session = spark_session(spark_home)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def settings(trained: Settings) -> Settings:
    return trained


@pytest.fixture(scope="session")
def api_url(trained: Settings) -> str:
    return trained.api
