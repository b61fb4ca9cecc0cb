"""How the API behaves, whatever stands behind it: run on fakes (tests/orchestrator/test_api.py)
and on the real stack (tests/stack/test_api.py). The fixture `api` is an HTTP client of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RECOMMEND, EVENTS = "/v1/recommend", "/v1/events"
NO_IMPRESSION = {"x-nextclick-probe": "1"}


def ask(api: httpx.Client, **body: Any) -> dict[str, Any]:
    response = api.post(RECOMMEND, json=body, headers=NO_IMPRESSION)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def new_session() -> str:
    return f"test-{uuid.uuid4().hex}"


# --- what comes in, property-based ---------------------------------------------------------------

_TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "-1", "\x00", "\ud800", "x" * 10_000, "é", "i1", "click", "mobile", "NaN"]
)
_NUMBERS = st.integers(-2, 300) | st.sampled_from(
    [0, -1, 10**9, 10**30, 0.5, 1e308, float("nan"), float("inf"), 1_700_000_000_000]
)
_SCALARS = st.none() | st.booleans() | _TEXTS | _NUMBERS
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=10,
)
_EVENT = st.dictionaries(
    st.sampled_from(
        ["session_id", "type", "time", "item_id", "event_id", "position", "device", "source",
         "price", "quantity", "query", "request_id", "other"]
    ),
    _SCALARS,
    max_size=8,
) | st.builds(
    lambda kind, item: {"session_id": "s", "type": kind, "item_id": item},
    st.sampled_from(["click", "item_view", "search", "nonsense"]),
    _TEXTS,
)  # fmt: skip
_EVENTS = st.lists(_EVENT | _ANYTHING, max_size=4)
RECOMMEND_BODIES = (
    st.fixed_dictionaries(
        {},
        optional={
            "session_id": _TEXTS | _ANYTHING,
            "events": _EVENTS | _ANYTHING,
            "k": _NUMBERS | _ANYTHING,
            "context": st.dictionaries(
                st.sampled_from(["device", "source", "else"]), _TEXTS | _ANYTHING, max_size=3
            )
            | _ANYTHING,
            "exclude": st.lists(_TEXTS | _ANYTHING, max_size=4) | _ANYTHING,
            "unknown": _ANYTHING,
        },
    )
    | _ANYTHING
)
EVENT_BODIES = _EVENT | _EVENTS | st.builds(lambda events: {"events": events}, _EVENTS) | _ANYTHING

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

BAD_BODIES = [
    (b"", ""),
    (b"{", ""),
    (b"\xff\xfe", ""),
    (b"[]", ""),
    (b"null", ""),
    (b'"text"', ""),
    (b'{"k": NaN}', ""),
    (b'{"k": Infinity}', ""),
    (b"[" * 50_000, ""),
    (b'{"k": ' + b"9" * 5000 + b"}", ""),
    (b'{"k": 0}', "k"),
    (b'{"k": -1}', "k"),
    (b'{"k": 1000000000}', "k"),
    (b'{"k": null}', "k"),
    (b'{"k": true}', "k"),
    (b'{"k": "5"}', "k"),
    (b'{"k": 5.0}', "k"),
    (b'{"k": [5]}', "k"),
    (b'{"session_id": ""}', "session_id"),
    (b'{"session_id": 7}', "session_id"),
    (b'{"session_id": null}', "session_id"),
    (b'{"session_id": "a\\u0000b"}', "session_id"),
    (b'{"session_id": "\\ud800"}', "session_id"),
    (b'{"session_id": "' + b"x" * 10_000 + b'"}', "session_id"),
    (b'{"exclude": "i1"}', "exclude"),
    (b'{"exclude": [1]}', "exclude[0]"),
    (b'{"exclude": ["i1", "a\\nb"]}', "exclude[1]"),
    (b'{"context": []}', "context"),
    (b'{"context": {"device": "toaster"}}', "context.device"),
    (b'{"context": {"weather": "fine"}}', "context.weather"),
    (b'{"events": {}}', "events"),
    (b'{"events": [7]}', "events[0]"),
    (b'{"events": [{"type": "click"}]}', "events[0].item_id"),
    (b'{"events": [{"type": "sing", "item_id": "i1"}]}', "events[0].type"),
    (b'{"events": [{"type": "click", "item_id": "i\\u0000"}]}', "events[0].item_id"),
    (b'{"events": [{"type": "click", "item_id": "i1", "time": "soon"}]}', "events[0].time"),
    (b'{"session_id": "a", "events": [{"type": "search", "session_id": "b"}]}', "events[0].session_id"),
    (b'{"sesion_id": "a"}', "sesion_id"),
]  # fmt: skip


class ApiSuite:
    """Behaviour that holds for every deployment with a release that is live."""

    @pytest.fixture
    def item(self, api: httpx.Client) -> str:
        """An item that the shop has."""
        return ids(ask(api, k=3))[2]

    def test_a_stranger_gets_popular_items(self, api: httpx.Client) -> None:
        answer = ask(api)
        assert set(answer) == {
            "request_id", "items", "release", "session", "degraded", "timings_ms"
        }  # fmt: skip
        assert answer["session"] == {"events": 0}
        assert len(answer["items"]) == 20
        assert answer["degraded"] == []
        assert answer["release"]
        stages = {"session", "candidates", "features", "matrix", "ranking", "rules", "total"}
        assert set(answer["timings_ms"]) == stages - {"session"}
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert all(item["sources"] for item in answer["items"])
        assert len(set(ids(answer))) == 20

    @pytest.mark.parametrize("k", [1, 2, 50])
    def test_k_items(self, api: httpx.Client, k: int) -> None:
        assert len(ask(api, k=k)["items"]) == k

    def test_events_in_the_request_count(self, api: httpx.Client, item: str) -> None:
        """Also without a session, and without times; with the session, it is the same."""
        cold = ask(api)
        click = {"type": "click", "item_id": item}
        anonymous = ask(api, events=[click])
        named = ask(api, session_id=new_session(), events=[click])
        assert ids(anonymous) != ids(cold)
        assert ids(named) == ids(anonymous)
        assert item not in ids(anonymous)[:1]

    def test_clicks_sent_are_seen_by_the_next_request(self, api: httpx.Client, item: str) -> None:
        session = new_session()
        before = ids(ask(api, session_id=session))
        sent = api.post(EVENTS, json={"session_id": session, "type": "click", "item_id": item})
        assert sent.status_code == 202, sent.text
        wanted = ids(ask(api, events=[{"type": "click", "item_id": item}]))
        assert wanted != before
        for _ in _tries(10):
            if ids(ask(api, session_id=session)) == wanted:
                return
        pytest.fail("the click did not change the answer within 10 s")

    def test_unknown_is_no_error(self, api: httpx.Client) -> None:
        cold = ids(ask(api))
        for item in ("no such item", "-1", "é"):
            answer = ask(api, session_id="-1", events=[{"type": "click", "item_id": item}])
            assert answer["degraded"] == []
            assert set(ids(answer)) & set(cold)

    def test_excluded_items_are_left_out(self, api: httpx.Client) -> None:
        first = ids(ask(api, k=5))
        assert not set(first) & set(ids(ask(api, k=50, exclude=first)))

    def test_wrong_content_type_is_tolerated(self, api: httpx.Client) -> None:
        response = api.post(RECOMMEND, content=b'{"k": 1}', headers={"content-type": "text/plain"})
        assert response.status_code == 200

    @pytest.mark.parametrize(("body", "field"), BAD_BODIES, ids=range(len(BAD_BODIES)))
    def test_bad_requests_are_told_what_is_wrong(
        self, api: httpx.Client, body: bytes, field: str
    ) -> None:
        response = api.post(RECOMMEND, content=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert set(error) == {"field", "got", "expected", "message"}
        assert error["field"] == field
        assert error["expected"]
        assert len(response.content) < 3000

    def test_too_many_events(self, api: httpx.Client) -> None:
        body = {"events": [{"type": "heartbeat"}] * 10_000}
        response = api.post(RECOMMEND, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["got"] == "10000 of them"
        assert api.post(EVENTS, json=body).status_code == 400

    @pytest.mark.parametrize("path", [RECOMMEND, EVENTS])
    def test_large_bodies(self, api: httpx.Client, path: str, body_limit: int) -> None:
        """Announced, or in chunks without a length."""
        body = b" " * (body_limit + 1)
        assert _too_large(api, path, body)
        assert _too_large(api, path, iter([body[:1000], body[1000:]]))
        assert api.post(path, content=b" " * body_limit).status_code == 400

    def test_events_are_sorted_into_good_and_refused(self, api: httpx.Client, item: str) -> None:
        session, moment = new_session(), int(time.time() * 1000)
        good = {"session_id": session, "type": "click", "item_id": item, "time": moment}
        wrong = [
            ({"type": "click", "item_id": item}, "no_session", "session_id"),
            ({"session_id": session, "type": "sing"}, "unknown_type", "type"),
            ({**good, "price": -1, "time": moment - 1}, "negative_price", "price"),
            ({**good, "time": moment + 3_600_000}, "time_in_future", "time"),
            (good, "repeat", "event_id"),
            ("text", "not_an_object", ""),
            ({**good, "colour": "red"}, "unknown_field", "colour"),
        ]
        batch = [good, *(event for event, _, _ in wrong)]
        for body in (batch, {"events": batch}):
            response = api.post(EVENTS, json=body)
            assert response.status_code == 202, response.text
            answer = response.json()
            assert answer["accepted"] == 1
            assert len(answer["event_ids"]) == 1
            told = [(r["index"], r["reason"], r["field"]) for r in answer["refused"]]
            assert told == [(n, why, field) for n, (_, why, field) in enumerate(wrong, 1)]
            assert all(r["expected"] for r in answer["refused"])

    def test_nothing_good_is_a_bad_request(self, api: httpx.Client) -> None:
        for body in ({"type": "click"}, [{"type": "click"}], {"events": [7]}):
            response = api.post(EVENTS, json=body)
            assert response.status_code == 400
            answer = response.json()
            assert (answer["accepted"], len(answer["refused"])) == (0, 1)
        for content in (b"", b"7", b"{", b'"x"'):
            response = api.post(EVENTS, content=content)
            assert response.status_code == 400
            assert response.json()["error"]["expected"]

    def test_an_empty_batch_is_taken(self, api: httpx.Client) -> None:
        response = api.post(EVENTS, json=[])
        assert response.status_code == 202
        assert response.json() == {"accepted": 0, "refused": [], "event_ids": []}

    @FUZZ
    @given(body=RECOMMEND_BODIES)
    def test_no_request_breaks_it(self, api: httpx.Client, body: object) -> None:
        response = api.post(RECOMMEND, content=_render(body), headers=NO_IMPRESSION)
        assert response.status_code in (200, 400), response.text
        if response.status_code == 400:
            assert set(response.json()["error"]) == {"field", "got", "expected", "message"}
        else:
            assert response.json()["degraded"] == []

    @FUZZ
    @given(body=EVENT_BODIES)
    def test_no_events_break_it(self, api: httpx.Client, body: object) -> None:
        response = api.post(EVENTS, content=_render(body))
        assert response.status_code in (202, 400), response.text
        answer = response.json()
        assert "error" in answer or {"accepted", "refused", "event_ids"} == set(answer)

    @FUZZ
    @given(body=st.binary(max_size=200))
    def test_no_bytes_break_it(self, api: httpx.Client, body: bytes) -> None:
        assert api.post(RECOMMEND, content=body).status_code in (200, 400)
        assert api.post(EVENTS, content=body).status_code in (202, 400)

    def test_other_paths_and_methods_answer_json(self, api: httpx.Client) -> None:
        for response, status in (
            (api.get("/nowhere"), 404),
            (api.post("/v1/nowhere"), 404),
            (api.get(RECOMMEND), 405),
            (api.delete(EVENTS), 405),
        ):
            assert response.status_code == status
            assert response.json()["error"]["message"]
        assert api.get(RECOMMEND).json()["error"]["expected"] == "POST"

    def test_probes(self, api: httpx.Client) -> None:
        assert api.get("/livez").json() == {"live": True}
        ready = api.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["ready"] is True
        release = api.get("/v1/release").json()
        assert release["refused"] is None
        assert release["release"] == ready.json()["release"] == ask(api)["release"]

    def test_metrics_count_answers(self, api: httpx.Client) -> None:
        name = 'nextclick_requests_total{route="/v1/recommend",status="200"}'
        before = _metric(api, name)
        ask(api)
        assert _metric(api, name) == before + 1
        page = api.get("/metrics").text
        for expected in (
            "nextclick_request_seconds_bucket",
            "nextclick_requests_in_flight",
            'nextclick_stage_seconds_count{stage="ranking"}',
            'nextclick_degraded_total{reason="session"}',
            'nextclick_items_total{source="popular"}',
            f'nextclick_release_info{{release="{ask(api)["release"]}"}} 1.0',
        ):
            assert expected in page

    def test_openapi_examples_are_good_requests(self, api: httpx.Client) -> None:
        paths = api.get("/openapi.json").json()["paths"]
        for path, status in ((RECOMMEND, 200), (EVENTS, 202)):
            described = paths[path]["post"]
            body = described["requestBody"]["content"]["application/json"]
            assert body["examples"]
            for example in body["examples"].values():
                assert api.post(path, json=example["value"]).status_code == status
            assert str(status) in described["responses"]


def _render(body: object) -> bytes:
    return json.dumps(body).encode()


def _too_large(api: httpx.Client, path: str, content: bytes | Iterator[bytes]) -> bool:
    """Whether the body got its 413, which may come while it is still being sent."""
    try:
        response = api.post(path, content=content)
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return True  # the server had answered and closed before it was read
    return response.status_code == 413 and "bytes" in response.json()["error"]["expected"]


def _tries(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def _metric(api: httpx.Client, name: str) -> float:
    lines = api.get("/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)
