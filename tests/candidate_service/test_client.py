"""The client, as far as it needs no service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from candidate_service.client import LocalCandidates, RemoteCandidates
from candidate_service.follow import LiveIndex
from contracts.candidates import SIGNALS, SOURCES, CandidateSet, unknown_signals
from contracts.errors import ServiceError
from contracts.settings import Settings

Handler = Callable[[httpx.Request], httpx.Response]


class _One:
    version = "v1"

    def candidates(self, items: Any, count: int, exclude: Any = ()) -> CandidateSet:
        assert (items, count, exclude) == (["b"], 5, [])
        values = np.zeros((1, len(SOURCES)), np.float32)
        return CandidateSet(("a",), values, values, unknown_signals(1))


def _ask(handler: Handler, items: list[str]) -> tuple[CandidateSet, str]:
    async def ask() -> tuple[CandidateSet, str]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
            remote = RemoteCandidates("http://there/", http)
            return await remote.candidates(items, 5000, [], timeout=1), remote.version

    return asyncio.run(ask())


def test_null_is_nan_and_only_possible_ids_are_sent() -> None:
    sent: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        row = [None, 1.5, *[0.25] * (len(SOURCES) - 2)]
        return httpx.Response(
            200,
            json={
                "version": "v9",
                "items": ["a"],
                "scores": [row],
                "ranks": [row],
                "signals": [[2.0] * len(SIGNALS)],
            },
        )

    found, version = _ask(handler, ["a", "\ud800", "x" * 300, "✓"])
    assert sent == [{"items": ["a", "✓"], "count": 1000, "exclude": []}]
    assert (found.items, version) == (("a",), "v9")
    np.testing.assert_array_equal(found.scores[0, :3], [np.nan, 1.5, 0.25])
    assert (found.signals == 2).all()


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"version":"v","items":["a"],"scores":[],"ranks":[]}'],
)
def test_a_strange_answer_is_told(body: bytes) -> None:
    with pytest.raises(ServiceError, match="no set of candidates"):
        _ask(lambda _: httpx.Response(200, content=body), ["a"])


def test_a_service_that_is_not_there_is_told() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServiceError, match="not to be reached: refused"):
        _ask(refuse, ["a"])


def test_the_index_of_this_process() -> None:
    local = LocalCandidates(_One())
    assert local.version == "v1"
    assert asyncio.run(local.candidates(["b"], 5, [], timeout=1)).items == ("a",)
    with pytest.raises(ServiceError, match="no time"):
        asyncio.run(local.candidates(["b"], 5, [], timeout=0))


def test_no_release_is_a_reason(tmp_path: Any) -> None:
    live = LiveIndex(Settings.model_validate({"home": tmp_path}))
    live.refresh()
    assert live.current is None
    assert "no release is active" in live.problem
