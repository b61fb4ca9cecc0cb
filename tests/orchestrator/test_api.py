"""The API's behaviour on fakes: a real HTTP server, nothing behind it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from orchestrator.api import create_app
from orchestrator.probes import Probes
from tests.orchestrator.api_suite import ApiSuite
from tests.orchestrator.fakes import FakeWorld, settings_in


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FakeWorld:
    folder: Path = tmp_path_factory.mktemp("home")
    budgets = {f"{name}_budget_ms": 5000 for name in ("session", "candidates", "features")}
    settings = settings_in(folder, deadline_ms=10_000, ranking_budget_ms=5000, **budgets)
    made = FakeWorld(settings)
    made.activate("release-1")
    asyncio.run(made.parts.follower.check())
    return made


@pytest.fixture(scope="module")
def api(world: FakeWorld) -> Iterator[httpx.Client]:
    app = create_app()
    app.state.parts = world.parts
    config = uvicorn.Config(Probes(app, world.parts.release_state), log_level="critical")
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
        yield client
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture(scope="module")
def body_limit(world: FakeWorld) -> int:
    return world.settings.max_body_bytes


class TestApi(ApiSuite):
    pass
