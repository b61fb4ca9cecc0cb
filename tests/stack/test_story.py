"""The story on the real stack: ask, click, ask again; take parts away and bring them back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contracts.settings import Settings
from local_stack import demo
from local_stack.data.generate import Shop
from local_stack.stack import status

SECONDS = 60.0


class Visitor:
    """A browser: one session, its clicks, its questions. Every answer must be 200."""

    def __init__(self, api: str) -> None:
        self.api, self.session = api, f"story-{uuid4().hex[:12]}"

    def click(self, item: str) -> None:
        body = {"session_id": self.session, "type": "click", "item_id": item}
        response = httpx.post(f"{self.api}/v1/events", json=body, timeout=10)
        assert response.status_code == 202, response.text

    def ask(self, **more: Any) -> dict[str, Any]:
        body = {"session_id": self.session, "k": 20, **more}
        response = httpx.post(f"{self.api}/v1/recommend", json=body, timeout=10)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def top(self, count: int = 20, **more: Any) -> list[str]:
        return [item["item_id"] for item in self.ask(**more)["items"][:count]]


def eventually(what: str, true: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def pid_of(settings: Settings, name: str) -> int:
    service = next(row for row in status(settings)["services"] if row["name"] == name)
    assert service["pid"], f"{name} does not run"
    return int(service["pid"])


@pytest.fixture
def visitor(trained: Settings) -> Visitor:
    return Visitor(trained.api)


def planted_chain(shop: Shop, length: int) -> list[str]:
    """Items of which each is what the shop's visitors click after the one before."""
    chain = [shop.popular_items()[0]]
    while len(chain) < length:
        chain.append(shop.successor(chain[-1]))
    return chain


def test_clicks_change_the_answer_toward_what_was_clicked(visitor: Visitor, shop: Shop) -> None:
    *clicked, expected = planted_chain(shop, 3)
    cold = visitor.top()
    for item in clicked:
        visitor.click(item)
    eventually("the planted next item is in the top 5", lambda: expected in visitor.top(5), 10)
    warm = visitor.ask()
    assert [item["item_id"] for item in warm["items"]] != cold
    assert warm["degraded"] == []
    assert warm["release"]
    scores = [item["score"] for item in warm["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(item["sources"] for item in warm["items"])


def test_events_of_the_request_count_like_events_that_were_sent(
    visitor: Visitor, shop: Shop
) -> None:
    *clicked, expected = planted_chain(shop, 3)
    events = [{"type": "click", "item_id": item} for item in clicked]
    assert expected in visitor.top(5, events=events)


def test_excluded_items_stay_out(visitor: Visitor, shop: Shop) -> None:
    first = visitor.top()
    assert not set(first[:5]) & set(visitor.top(exclude=first[:5]))


@pytest.mark.parametrize(
    ("service", "reason"), [("triton", "ranking"), ("redis", "session")], ids=["triton", "redis"]
)
def test_a_part_that_dies_makes_answers_poorer_and_comes_back(
    trained: Settings, visitor: Visitor, shop: Shop, service: str, reason: str
) -> None:
    clicked = planted_chain(shop, 2)
    events = [{"type": "click", "item_id": item} for item in clicked]
    eventually("all is well before", lambda: visitor.ask(events=events)["degraded"] == [])
    os.kill(pid_of(trained, service), signal.SIGKILL)
    missing: set[str] = set()

    def recovered() -> bool:
        answer = visitor.ask(events=events)
        assert answer["items"], "an answer without items"
        missing.update(answer["degraded"])
        return reason in missing and answer["degraded"] == []

    eventually(f"{service} is missed, then back", recovered)


def test_all_the_way_down_to_the_requests_own_events(
    trained: Settings, visitor: Visitor, shop: Shop
) -> None:
    """Triton and Redis stopped at once (not dead: they do not answer): still 200, still items."""
    pids = [pid_of(trained, name) for name in ("triton", "redis")]
    clicked, expected = planted_chain(shop, 2)
    events = [{"type": "click", "item_id": clicked}]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = visitor.ask(events=events)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert {"session", "features", "ranking"} <= set(answer["degraded"])
    assert expected in [item["item_id"] for item in answer["items"][:10]]
    assert answer["timings_ms"]["total"] < 3 * trained.deadline_ms
    eventually("degraded empties by itself", lambda: visitor.ask(events=events)["degraded"] == [])


def test_the_visit_that_the_demo_shows_is_known_when_it_asks(trained: Settings) -> None:
    shown = demo.live_answer(trained)
    assert shown["answer"]["session"]["events"] == shown["accepted"] >= 3
    assert shown["answer"]["degraded"] == []
    assert any(set(item["sources"]) - {"popular"} for item in shown["answer"]["items"])
