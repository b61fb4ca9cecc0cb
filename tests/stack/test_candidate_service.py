"""The candidate service for real: `bentoml serve` on a free port, and its client."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from candidate_service.client import LocalCandidates, RemoteCandidates
from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import CandidateSet
from contracts.errors import ServiceError
from contracts.release import Release, ReleaseStore
from contracts.settings import ROOT, Settings
from tests.candidate_service.behaviour import Ask, MergedBehaviour
from tests.candidate_service.shop import CUTOFF, events, planted_index, visit

START_SECONDS = 60.0


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate({"home": tmp_path_factory.mktemp("home")})


@pytest.fixture(scope="module")
def index(settings: Settings) -> CandidateIndex:
    return planted_index(settings.indexes)


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[str]:
    """A running service that finds no release yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        "candidate_service.service:CandidateService",
    ]
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **settings.environment(), "BENTOML_DO_NOT_TRACK": "1"},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(lambda: _status(url, "/livez") == 200)
        yield url
    finally:
        _stop(process)


@pytest.fixture(scope="module")
def before(service: str) -> tuple[httpx.Response, int, str]:
    """What the service says while there is no release: its answer, its readiness, our client's
    error."""
    answer = _post(service, {"items": ["i05"], "count": 5})
    with pytest.raises(ServiceError) as told:
        _ask(service, ["i05"], 5)
    return answer, _status(service, "/readyz"), str(told.value)


@pytest.fixture(scope="module")
def live(service: str, before: object, settings: Settings, index: CandidateIndex) -> str:
    """The service, when it has taken the planted index."""
    _activate(settings, "first", index.version)
    _wait(lambda: _status(service, "/readyz") == 200)
    return service


def test_without_a_release_it_says_so(before: tuple[httpx.Response, int, str]) -> None:
    answer, ready, told = before
    assert (answer.status_code, ready) == (503, 503)
    assert "no release is active" in answer.json()["error"]
    assert re.search(r"503.*no release is active", told)


@pytest.fixture(scope="module")
def remote(live: str) -> Iterator[Ask]:
    client = RemoteCandidates(live)
    with asyncio.Runner() as runner:

        def ask(items: Sequence[str], count: int, exclude: Sequence[str] = ()) -> CandidateSet:
            return runner.run(client.candidates(items, count, exclude, timeout=10))

        yield ask
        runner.run(client.aclose())


class TestRemote(MergedBehaviour):
    @pytest.fixture
    def ask(self, remote: Ask) -> Ask:
        return remote


@pytest.mark.parametrize("items", [[], ["i05"], ["i05", "no such item", "-1"]])
def test_remote_and_local_agree(live: str, index: CandidateIndex, items: list[str]) -> None:
    async def both() -> tuple[CandidateSet, CandidateSet, str]:
        remote = RemoteCandidates(live)
        near = await LocalCandidates(index).candidates(items, 30, ["i07"], timeout=1)
        far = await remote.candidates(items, 30, ["i07"], timeout=10)
        await remote.aclose()
        return near, far, remote.version

    near, far, version = asyncio.run(both())
    assert near.items == far.items
    np.testing.assert_allclose(near.scores, far.scores, rtol=1e-6)
    np.testing.assert_array_equal(near.ranks, far.ranks)
    assert version == index.version


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": ["i05"], "count": 0}, "count"),
        ({"items": ["i05"], "count": 10**9}, "count"),
        ({"items": ["i05"], "count": None}, "count"),
        ({"items": ["i05"], "count": "5"}, "count"),
        ({"items": ["x" * 10_000], "count": 5}, "items"),
        ({"items": "i05", "count": 5}, "items"),
        ({"count": 5}, "items"),
        ({"items": [], "count": 5, "user": "u"}, "user"),
    ],
)
def test_a_wrong_body_is_refused(live: str, body: dict[str, Any], field: str) -> None:
    answer = _post(live, body)
    assert answer.status_code == 400
    assert field in answer.text


def test_no_json_is_refused(live: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{live}/candidates", content=b"{", headers=headers, timeout=10)
    assert answer.status_code == 400


def test_it_follows_the_release_and_survives_a_bad_one(live: str, settings: Settings) -> None:
    rows = visit("v", ["i05", "elsewhere"])
    other = build_index(events(rows), None, CUTOFF, settings.indexes)
    first = ReleaseStore(settings.releases).get("first").index_version
    _activate(settings, "second", other.version)
    _wait(lambda: _version(live) == other.version)
    assert set(_ask(live, ["i05"], 5).items) == {"i05", "elsewhere"}
    _activate(settings, "broken", "no-such-index")
    time.sleep(2.5)  # two looks at the release
    assert _version(live) == other.version
    ReleaseStore(settings.releases).activate("first")
    _wait(lambda: _version(live) == first)


def test_no_time_and_no_service_are_told(live: str) -> None:
    with pytest.raises(ServiceError, match="did not answer within"):
        _ask(live, ["i05"], 5, timeout=1e-5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(ServiceError, match="did not answer within"):
            _ask(f"http://127.0.0.1:{silent.getsockname()[1]}", ["i05"], 5, timeout=0.2)
        assert time.monotonic() - started < 2


def _ask(url: str, items: list[str], count: int, timeout: float = 10) -> CandidateSet:
    async def ask() -> CandidateSet:
        remote = RemoteCandidates(url)
        try:
            return await remote.candidates(items, count, (), timeout)
        finally:
            await remote.aclose()

    return asyncio.run(ask())


def _post(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{url}/candidates", json=body, timeout=10)


def _version(url: str) -> str:
    return str(_post(url, {"items": [], "count": 1}).json()["version"])


def _status(url: str, path: str) -> int:
    try:
        return httpx.get(url + path, timeout=2).status_code
    except httpx.HTTPError:
        return 0


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < end, "the service did not get there in time: see service.log"
        time.sleep(0.1)


def _activate(settings: Settings, version: str, index_version: str) -> None:
    store = ReleaseStore(settings.releases)
    store.add(
        Release(
            version=version,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            ranker_version=1,
            mlflow_run="",
            index_version=index_version,
            features=(),
            fingerprint="",
            feature_service="ranker_v1",
            rules_version="none",
            metrics={},
            parity=0,
        )
    )
    store.activate(version)


def _stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=15)
