"""The benchmark `serve` against a small server in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from benchmarks import cpu, result
from benchmarks.__main__ import run
from benchmarks.serve import measure, parse_rates, table
from benchmarks.sessions import request_bodies
from contracts.errors import ServiceError, UsageError
from contracts.events import parse_event
from contracts.settings import Settings

SERVER = """
import sys, time
from aiohttp import web
async def livez(request):
    return web.json_response({})
async def recommend(request):
    until = time.process_time() + 0.01
    while time.process_time() < until: pass
    return web.json_response({"items": [], "degraded": ["cold"]})
app = web.Application()
app.add_routes([web.get("/livez", livez), web.post("/v1/recommend", recommend)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    port = str(_free_port())
    return Settings.from_environment({"NEXTCLICK_HOME": str(tmp_path), "NEXTCLICK_API_PORT": port})


@pytest.fixture
def server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SERVER, str(settings.api_port)]
    with subprocess.Popen(command) as process:
        found = {"api": [psutil.Process(process.pid)]}
        monkeypatch.setattr("local_stack.process.by_service", lambda _: found)
        monkeypatch.setattr("benchmarks.serve.IDLE_SECONDS", 0.1)
        monkeypatch.setattr("benchmarks.serve.SETTLE_SECONDS", 0.0)
        _await(settings.api_port)
        yield process
        process.terminate()


def _await(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not start")


LOAD = {"rates": [20.0, 40.0], "seconds": 0.5, "warmup": 0.1, "rounds": 2}


@pytest.mark.usefixtures("server")
def test_the_result_says_what_was_asked_reached_and_spent(settings: Settings) -> None:
    document = measure(settings, LOAD)
    found = [(row["target"], row["rate_asked"], row["answers"]) for row in document["results"]]
    assert found == [
        ("empty", 20, 10), ("recommend", 20, 10), ("empty", 40, 20), ("recommend", 40, 20),
    ]  # fmt: skip
    for row in document["results"]:
        real = row["target"] == "recommend"
        assert row["errors"] == {}
        assert row["rate_reached"] == pytest.approx(row["rate_asked"], rel=0.5)
        assert row["degraded_share"] == real
        # the server burns 10 ms of processor time for a recommendation
        assert not real or row["cpu_ms_per_answer"]["api"] >= 7
        latency = row["latency_ms"]
        assert latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    empty, recommend = (row["cpu_ms_per_answer"]["api"] for row in document["results"][:2])
    assert empty < recommend
    # the kernel counts in tens of milliseconds: more than one round
    assert sum(row["cpu_ms_per_answer"][cpu.GENERATOR] for row in document["results"]) > 0
    assert document["load"]["sessions"] == "synthetic"
    assert document["conditions"]["settings"]["deadline_ms"] == settings.deadline_ms
    assert [len(row["latency_ms"]) for row in document["samples"]] == [10, 10, 20, 20]
    text = table({**document, "raw": "somewhere"})
    assert "recommend       40" in text
    assert "100.0%" in text


def test_a_stack_that_is_down_says_how_to_start_it(settings: Settings) -> None:
    with pytest.raises(ServiceError, match=r"ClientConnectorError.*\./nextclick up"):
        measure(settings, LOAD)


@pytest.mark.parametrize("text", ["", "a", "0", "-5", "10,,20", "nan", "inf"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected requests a second"):
        parse_rates(text)


def test_rates() -> None:
    assert parse_rates("50,100.5") == [50.0, 100.5]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "serve"),
        ([], 2, "serve"),
        (["serve", "--help"], 0, "--rates"),
        (["nothing"], 2, "nothing"),
        (["serve", "--rates", "fast"], 2, "got 'fast'"),
    ],
)
def test_the_command(
    arguments: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    assert run() == code
    out, err = capsys.readouterr()
    assert says in out + err


@pytest.mark.usefixtures("server")
def test_json_is_one_document_and_the_raw_file_has_every_sample(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NEXTCLICK_HOME", str(settings.home))
    monkeypatch.setenv("NEXTCLICK_API_PORT", str(settings.api_port))
    monkeypatch.setattr(result, "FOLDER", tmp_path / "results")
    options = ["--rates", "20", "--seconds", "0.5", "--warmup", "0", "--rounds", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", "serve", *options])
    assert run() == 0
    document = json.loads(capsys.readouterr().out)
    raw = json.loads(Path(document.pop("raw")).read_text())
    assert [len(row["latency_ms"]) for row in raw.pop("samples")] == [10, 10]
    assert raw == document


def test_requests_carry_the_newest_events_of_real_sessions_moved_to_now(
    settings: Settings,
) -> None:
    folder = Path(settings.lake) / "events" / "day=2021-02-01"
    folder.mkdir(parents=True)
    start = 1_612_137_600_000
    rows = [
        {"session_id": session, "type": "item_view", "time": start + 1000 * n, "item_id": f"i{n}"}
        for session in ("a", "b")
        for n in range(9)
    ]
    search = {"session_id": "a", "type": "search", "time": start + 99_000, "item_id": None}
    pd.DataFrame([*rows, search]).to_parquet(folder / "0.parquet")
    bodies, origin = request_bodies(settings, k=7, carry=3)
    assert origin == "lake"
    requests = [json.loads(body) for body in bodies]
    assert {request["session_id"] for request in requests} == {"a", "b"}
    now = int(time.time() * 1000)
    for request in requests:
        assert request["k"] == 7
        events = request["events"]
        assert [event["item_id"] for event in events] == ["i6", "i7", "i8"]
        assert now - 5000 < events[-1]["time"] <= now
        assert [event["time"] - events[-1]["time"] for event in events] == [-2000, -1000, 0]
        for event in events:
            parse_event({"session_id": request["session_id"], **event}, now)
    bare, origin = request_bodies(settings, k=7, carry=0)
    assert origin == "lake"
    assert {json.loads(body)["session_id"] for body in bare} == {"a", "b"}
    assert all(json.loads(body)["events"] == [] for body in bare)


def test_processor_time_counts_processes_that_come_and_go() -> None:
    before = {"api": {(1, 0.0): 5.0, (2, 0.0): 1.0}}
    after = {"api": {(1, 0.0): 5.5, (3, 9.0): 0.25}, "redis": {(4, 9.0): 1.0}}
    assert cpu.spent(before, after) == {"api": 0.75, "redis": 1.0}
    assert cpu.added({"api": 1.0}, {"api": 0.5, "redis": 2.0}) == {"api": 1.5, "redis": 2.0}
