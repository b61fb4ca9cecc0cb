"""The visitors of the benchmark `truth`, against a small server: what they send, when they go."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from benchmarks import visitors
from benchmarks.served_truth import Disturbance, text
from benchmarks.visitors import Seen, Traffic, Visit, past_visits, run
from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings

K, COLUMNS = 5, 10


@dataclass
class FakeShop:
    """Answers every question with the same items; `fail`: so many event calls get 503 first."""

    fail: int = 0
    refuse: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        if self.fail:
            self.fail -= 1
            return web.json_response({}, status=503)
        if self.refuse:
            return web.json_response({"error": "bad"}, status=400)
        self.events += await request.json()
        return web.json_response({}, status=202)

    async def answer(self, request: web.Request) -> web.Response:
        self.questions.append(await request.json())
        items = [{"item_id": f"i{number}"} for number in range(K)]
        degraded = ["ranking"] if len(self.questions) % 5 == 0 else []
        body = {"items": items, "request_id": "r", "release": "v1", "degraded": degraded}
        return web.json_response(body)


@pytest.fixture
def shop() -> FakeShop:
    return FakeShop()


@pytest.fixture
def settings(shop: FakeShop, tmp_path: Path) -> Iterator[Settings]:
    loop = asyncio.new_event_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    app = web.Application()
    app.add_routes([web.post("/v1/events", shop.take), web.post("/v1/recommend", shop.answer)])
    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, listening).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = listening.getsockname()[1]
    yield Settings.model_validate({"home": tmp_path, "api_port": port})
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()


VISITS: list[Visit] = [
    [{"type": "item_view", "item_id": f"i{visit}"}, {"type": "click", "item_id": "i2"}]
    for visit in range(50)
]
FAST = Traffic(cells=150 * K * COLUMNS, columns=COLUMNS, visitors=10, pause=0.001, k=K)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "LATE_SECONDS", (0.001, 0.01))


def test_every_event_is_sent_and_what_is_late_or_twice_is_counted(
    settings: Settings, shop: FakeShop
) -> None:
    seen = asyncio.run(run(settings, VISITS, FAST))
    assert seen.answers == len(shop.questions) >= 150
    assert seen.unranked == seen.answers // 5
    assert seen.cells == (seen.answers - seen.unranked) * K * COLUMNS >= FAST.cells
    assert seen.events == len(shop.events)
    times = Counter(event["event_id"] for event in shop.events)
    assert sum(count - 1 for count in times.values()) == seen.repeated > 0
    assert min(seen.late, seen.carried) > 0
    carried = [event["event_id"] for asked in shop.questions for event in asked["events"]]
    assert len(carried) == seen.carried
    assert set(carried) <= set(times)
    assert any("request_id" in event for event in shop.events)
    assert json.loads(json.dumps(seen.as_dict()))["releases"] == {"v1": seen.answers}


def test_what_is_not_taken_at_once_is_sent_again(settings: Settings, shop: FakeShop) -> None:
    shop.fail = 3
    seen = asyncio.run(run(settings, VISITS, Traffic(K * COLUMNS, COLUMNS, 1, 0.001, K)))
    assert seen.retries == {"/v1/events 503": 3}


def test_what_is_refused_ends_the_run(settings: Settings, shop: FakeShop) -> None:
    shop.refuse = True
    with pytest.raises(ServiceError, match=r"/v1/events does not answer as it should: status 400"):
        asyncio.run(run(settings, VISITS, FAST))


def test_visitors_stay_until_the_disturbance_is_through(settings: Settings) -> None:
    told: list[float] = []

    def disturb(share: float) -> bool:
        told.append(share)
        return told.count(1.0) < 3

    seen = asyncio.run(run(settings, VISITS, Traffic(K * COLUMNS, COLUMNS, 1, 0.001, K), disturb))
    assert told.count(1.0) >= 3
    assert seen.cells > K * COLUMNS


def test_visits_are_read_in_order_and_anew_the_same(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    with pytest.raises(UsageError, match="holds no visits"):
        past_visits(settings, seed=1)
    rows = [
        {"visit": f"v{n % 7}", "type": 2 + n % 2, "item_id": f"i{n}", "device": 1, "source": 0,
         "position": n % 3 - 1, "time": n, "key": n}
        for n in range(70)
    ]  # fmt: skip
    folder = Path(settings.offline) / "events_clean"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows[::-1]), folder / "part.parquet")
    found = past_visits(settings, seed=1, count=5)
    assert found == past_visits(settings, seed=1, count=5)
    assert [len(visit) for visit in found] == [10] * 5
    for visit in found:
        numbers = [int(event["item_id"][1:]) for event in visit]
        assert numbers == sorted(numbers)
    assert {event.get("position") for visit in found for event in visit} == {None, 0, 1}
    assert {event["type"] for visit in found for event in visit} == {"item_view", "click"}


def test_kills_are_spread_and_the_switch_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import served_truth

    switched, killed = threading.Event(), []
    monkeypatch.setitem(served_truth._SWITCHES, "index", lambda settings: switched.wait(5))
    disturbance = Disturbance(
        Settings.model_validate({"home": tmp_path}), planned=2, switch="index"
    )

    def kill() -> None:
        killed.append(share)
        disturbance.kills += 1

    monkeypatch.setattr(disturbance, "_kill", kill)
    busy = []
    for share in (0.1, 0.3, 0.34, 0.5, 0.7, 1.0):
        busy.append(disturbance(share))
    switched.set()
    disturbance.end()
    assert killed == [0.34, 0.7]
    assert busy == [True] * 6
    assert (disturbance(1.0), disturbance.switches) == (False, 1)


def test_a_switch_that_failed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import served_truth

    def fails(settings: Settings) -> None:
        raise ServiceError("no Spark")

    monkeypatch.setitem(served_truth._SWITCHES, "train", fails)
    disturbance = Disturbance(Settings.model_validate({"home": tmp_path}), 0, "train")
    disturbance(0.5)
    with pytest.raises(ServiceError, match="no Spark"):
        disturbance.end()
    assert disturbance.switches == 0


def test_the_result_as_text() -> None:
    document = {
        "verdict": "equal", "differing": 0, "cells": 1000, "scores_differing": 0, "scores": 20,
        "answers": 1, "answers_lost": 0, "sent": Seen(events=7).as_dict(), "kills": 2,
        "switches": 1, "reasons": {}, "answers_behind": 0, "most_behind_ms": 0, "raw": "r.json",
    }  # fmt: skip
    assert text(document).startswith("equal: 0 of 1,000 cells differ")
