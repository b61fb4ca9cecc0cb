"""What can be told of trends and their stream without Spark: messages, the page, the next cycle."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest

from contracts.events import Event, EventType, Impression
from contracts.settings import Settings
from spark_jobs import stream_service
from spark_jobs.jobs import JOBS, default_jobs
from spark_jobs.main import main
from spark_jobs.stream import SETTLE_MS, Work
from spark_jobs.stream_messages import parse_message
from spark_jobs.stream_service import STALLED_SECONDS, Page
from tests.stack.conftest import free_ports

NOW = 1_790_000_000_000
EVENT = Event.model_validate(
    {"session_id": "s", "type": "click", "time": NOW, "item_id": "a", "request_id": "r"}
)


def test_an_event_is_kept_with_what_is_counted_of_it() -> None:
    row = parse_message(True, EVENT.to_json(), NOW + 7, 2, 40)
    assert row is not None
    assert len(row.pop("id")) == 32
    assert row == {
        "type": EventType.click, "items": ["a"], "request_id": "r", "time": NOW,
        "received": NOW + 7, "partition": 2, "offset": 40,
    }  # fmt: skip


def test_an_event_is_known_by_its_session_and_id() -> None:
    def digest(session: str, event: str) -> str:
        sent = EVENT.model_copy(update={"session_id": session, "event_id": event})
        row = parse_message(True, sent.to_json(), NOW, 0, 0)
        assert row is not None
        return str(row["id"])

    assert digest("s", "e") == digest("s", "e")
    assert len({digest("s", "e"), digest("se", "e"), digest("s", "ee"), digest("e", "s")}) == 4


def test_an_answer_is_kept_with_its_items() -> None:
    answer = Impression(
        request_id="r", session_id="s", time=NOW, release="x", items=["a", "b"],
        scores=[1, 0], sources=[[], []], degraded=[],
    )  # fmt: skip
    row = parse_message(False, answer.to_json(), NOW, 0, 1)
    assert row is not None
    assert row["items"] == ["a", "b"]
    assert "type" not in row


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"no json",
        b"{}",
        Event.model_validate({"session_id": "s", "type": "search", "time": NOW}).to_json(),
        EVENT.model_copy(update={"time": NOW + 400_000}).to_json(),  # refused at the door as well
    ],
)
def test_what_is_refused_or_names_no_item_is_left_out(value: bytes | None) -> None:
    assert parse_message(True, value, NOW, 0, 0) is None


def test_trends_are_made_where_the_stream_is_wanted() -> None:
    assert "windows" not in default_jobs(Settings())
    assert default_jobs(Settings(stream=True)) == list(JOBS)


def test_help_says_what_a_cluster_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["stream", "--help"])
    said = capsys.readouterr().out
    assert "NEXTCLICK_SPARK_MASTER" in said
    assert "NEXTCLICK_STREAM_STATE" in said


@pytest.mark.parametrize(("second", "wait"), [(5, 30), (6, 29), (34.5, 0.5), (35, 30), (4, 1)])
def test_a_cycle_begins_when_five_minutes_have_become_complete(
    second: float, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SETTLE_MS % 30_000 == 5_000
    monkeypatch.setattr("time.time", lambda: 1_790_000_100 + second)
    settings = Settings(stream_seconds=30)
    assert stream_service.seconds_to_next(settings, 0) == pytest.approx(wait)
    assert stream_service.seconds_to_next(settings, 3) == 8


@pytest.fixture
def page() -> Iterator[tuple[Page, int]]:
    port = free_ports(1)[0]
    made = Page("127.0.0.1", port)
    yield made, port
    made.close()


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_page_says_whether_the_stream_gets_on(page: tuple[Page, int]) -> None:
    made, port = page
    assert get(port, "/readyz")[0] == 503
    made.work = Work(cycles=3, messages=70, alive=time.monotonic(), told=int(time.time() * 1000))
    status, body = get(port, "/readyz")
    assert (status, json.loads(body)["messages"]) == (200, 70)
    assert "nextclick_stream_messages 70" in get(port, "/metrics")[1]
    made.work.alive -= STALLED_SECONDS + 1
    status, body = get(port, "/readyz")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert get(port, "/livez")[0] == 200
    assert get(port, "/")[0] == 404
