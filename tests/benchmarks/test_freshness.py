"""The figures of `freshness` against a small server whose delay is known."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from benchmarks import freshness, result
from benchmarks.freshness import Found, Load, Shop, measure, summary, text
from benchmarks.load import open_client
from contracts.errors import ServiceError
from contracts.settings import Settings


class Server:
    """Takes events, and knows those of a session `delay` seconds after it has said so."""

    def __init__(self, delay: float = 0.0, status: int = 202) -> None:
        self.delay, self.status = delay, status
        self.known: Counter[str] = Counter()

    async def events(self, request: web.Request) -> web.Response:
        events = await request.json()
        assert len({event["event_id"] for event in events}) == len(events)
        for event in events:
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.know, event["session_id"])
            else:
                self.know(event["session_id"])
        return web.json_response({}, status=self.status)

    def know(self, session: str) -> None:
        self.known[session] += 1

    async def recommend(self, request: web.Request) -> web.Response:
        session = (await request.json())["session_id"]
        return web.json_response({"session": {"events": self.known[session]}, "degraded": []})


async def run(server: Server, load: Load) -> Found:
    app = web.Application()
    app.router.add_post("/v1/events", server.events)
    app.router.add_post("/v1/recommend", server.recommend)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # asyncio's Server
    settings = Settings.model_validate({"api_port": port})
    try:
        async with open_client() as client:
            return await Shop(settings, client, load).open()
    finally:
        await runner.cleanup()


def test_what_is_known_at_once_is_fresh() -> None:
    found = asyncio.run(run(Server(), Load(rate=200, seconds=0.5, batch=5, samples=20)))
    assert (found.events, found.calls, len(found.fresh)) == (100, 20, 10)
    assert max(found.fresh) < 5
    assert not found.errors


def test_a_delay_is_measured_to_the_start_of_the_first_question_that_knew() -> None:
    found = asyncio.run(run(Server(delay=0.05), Load(rate=50, seconds=0.4, batch=2, samples=25)))
    assert len(found.fresh) == 10
    assert all(35 <= fresh <= 150 for fresh in found.fresh)
    assert all(visible >= fresh for fresh, visible in zip(found.fresh, found.visible, strict=True))
    assert found.questions >= 30  # at 0, 20, 40 milliseconds and once more


def test_what_is_never_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "GIVE_UP_SECONDS", 0.2)
    found = asyncio.run(run(Server(delay=60), Load(rate=20, seconds=0.1, batch=1, samples=20)))
    assert (found.unseen, found.fresh) == (2, [])


def test_calls_that_are_refused_are_errors_and_not_asked_after() -> None:
    found = asyncio.run(run(Server(status=503), Load(rate=20, seconds=0.2, batch=1, samples=20)))
    assert (dict(found.errors), found.events, found.questions) == ({"503": 4}, 0, 0)


@pytest.mark.parametrize(("samples", "expected"), [(100, 100), (10, 10), (1, 1)])
def test_so_many_calls_a_second_are_sampled(samples: float, expected: int) -> None:
    load = Load(rate=500, seconds=1, batch=5, samples=samples)
    assert sum(load.is_sampled(call) for call in range(load.calls)) == expected


def test_the_summary_says_what_a_person_can_work_out() -> None:
    fresh = [float(n) for n in range(100)]
    found = Found(events=500, fresh=fresh, visible=fresh, accepted=fresh, lateness=[20.0])
    told = summary(found)
    assert {"events": 500, "p50_ms": 49.0, "p99_ms": 98.0, "max_ms": 99.0}.items() <= told.items()
    assert told["generator_late"]


def test_the_command_prints_one_document_and_keeps_the_raw_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(result, "FOLDER", tmp_path)

    async def fake(settings: Settings, load: Load, warmup: float) -> tuple[Found, dict[str, float]]:
        return Found(events=5, fresh=[1.0], visible=[2.0], accepted=[1.0], lateness=[0.0]), {
            "api": 0.5
        }

    monkeypatch.setattr(freshness, "_run", fake)
    done = CliRunner().invoke(freshness.COMMAND, ["--json", "--seconds", "1"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["events"], document["p50_ms"], document["p99_ms"]) == (5, 1.0, 1.0)
    assert document["cpu_percent"] == {"api": 50.0}
    [raw] = tmp_path.iterdir()
    assert json.loads(raw.read_text())["samples"]["fresh_ms"] == [1.0]
    assert "1 asked after" in text(document)


def test_without_a_stack_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    async def nothing(*given: object) -> tuple[Found, dict[str, float]]:
        return Found(errors=Counter({"ClientConnectorError": 3})), {}

    monkeypatch.setattr(freshness, "_run", nothing)
    settings = Settings.model_validate({"home": tmp_path})
    with pytest.raises(ServiceError, match=r"start the stack with \./nextclick up"):
        measure(settings, Load(1, 1, 1, 1), 0)
