"""The proof on the real stack: nothing differs after faults and a switch of releases; what is then
broken on purpose is found and named; a past answer is given again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from benchmarks.served_truth import measure
from benchmarks.visitors import Traffic
from contracts.features import RANKED, of_view
from contracts.release import ReleaseStore
from contracts.settings import ROOT, Settings
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feast_engine.connection import connect
from feast_engine.layout import layout_of
from feast_engine.writer import OnlineWriter
from local_stack.lag import wait_until_consumed
from local_stack.rebuild import activate

CELLS = 45_000
LAG_MS = 30_000
"""A test machine may be so busy that a killed consumer takes long to come back."""
VIEW = "item_activity"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the proof leaves the tables that it makes."""
    return tmp_path_factory.mktemp("proof") / "offline"


@pytest.fixture(scope="module")
def proved(trained: Settings, tables: Path) -> Iterator[dict[str, Any]]:
    """What came of the benchmark `truth`, made small."""
    before = ReleaseStore(trained.releases).active_version()
    traffic = Traffic(CELLS, len(RANKED), visitors=6, pause=0.2)
    yield measure(trained, traffic, kills=1, switch="index", lag_ms=LAG_MS, keep=tables)
    assert before is not None
    activate(trained, before, lambda _: None)


def test_nothing_differs_after_kills_and_a_switch(proved: dict[str, Any]) -> None:
    assert proved["examples"] == []
    assert (proved["differing"], proved["scores_differing"], proved["verdict"]) == (0, 0, "equal")
    assert (proved["kills"], proved["switches"], len(proved["releases"])) == (1, 1, 2)
    assert proved["cells"] >= CELLS
    assert (proved["answers_lost"], proved["cells_not_compared"]) == (0, {})
    assert proved["scores"] == proved["rows"] == proved["cells"] // len(RANKED)
    sent = proved["sent"]
    assert min(sent["events"], sent["late"], sent["repeated"], sent["carried"]) > 0


def nextclick(settings: Settings, *arguments: str) -> tuple[int, dict[str, Any]]:
    environment = {**settings.environment(), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "local_stack", *arguments, "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


def ask(settings: Settings) -> dict[str, Any]:
    """A visitor of whom nothing is stored: the tables of the proof know no later sessions."""
    body = {"events": [{"type": "item_view", "item_id": "unheard of"}], "k": 100}
    response = httpx.post(f"{settings.api}/v1/recommend", json=body, timeout=10)
    answer: dict[str, Any] = response.raise_for_status().json()
    assert answer["degraded"] == []
    return answer


def in_the_lake(settings: Settings) -> None:
    time.sleep(1)  # rows of answers are sent together, some moments later
    wait_until_consumed(settings, lambda *_: None)


def activity(settings: Settings, item: str) -> list[dict[str, Any]]:
    """The item's rows that may be online by now, oldest first."""
    table = pq.read_table(f"{settings.offline}/{VIEW}", filters=[("item_id", "=", item)])
    rows: list[dict[str, Any]] = table.sort_by(EVENT_TIMESTAMP).to_pylist()
    now = time.time()
    return [row for row in rows if row[CREATED_TIMESTAMP].timestamp() < now]


def overwrite(settings: Settings, row: dict[str, Any]) -> None:
    """Put a row online, even one that is older than what is there."""
    item, moment = row["item_id"], int(row[EVENT_TIMESTAMP].timestamp() * 1000)
    layout = layout_of(VIEW, settings.feast_project)
    client: Any = connect(settings, 10)
    with closing(client):
        client.hdel(layout.key(item), layout.timestamp)  # else the guard would keep the newer row
        columns = {feature.name: [row[feature.name]] for feature in of_view(VIEW)}
        OnlineWriter(settings, client).write(VIEW, [item], [moment], columns)


@pytest.mark.usefixtures("proved")
def test_what_is_broken_online_is_found_and_named(trained: Settings, tables: Path) -> None:
    one, other = (item["item_id"] for item in ask(trained)["items"][:2])
    rows = {item: activity(trained, item) for item in (one, other)}
    since = str(time.time_ns() // 1_000_000)
    try:
        overwrite(trained, rows[one][-2])  # a stale key
        wrong = rows[other][-1] | {"views_7d": rows[other][-1]["views_7d"] + 1}
        overwrite(trained, wrong)  # an off-by-one
        answer = ask(trained)
        in_the_lake(trained)
    finally:
        for item in (one, other):
            overwrite(trained, rows[item][-1])
    code, found = nextclick(
        trained, "parity", "--offline", str(tables), "--since", since, "--examples", "100"
    )
    assert (code, found["verdict"], found["answers"]) == (3, "differing", 1)
    named = {(e["item_id"], e["feature"], e["reason"]) for e in found["examples"]}
    assert {item for item, _, _ in named} == {one, other}
    assert {each for each in named if each[0] == other} == {(other, "views_7d", "code")}
    assert {reason for item, _, reason in named if item == one} == {"stale"}
    assert {feature for item, feature, _ in named if item == one} <= {f.name for f in of_view(VIEW)}
    assert answer["request_id"] in {e["request_id"] for e in found["examples"]}
    page = httpx.get(f"{trained.api}/metrics", timeout=10).text  # of the whole run before
    assert "\nnextclick_parity_differing 0.0\n" in page


@pytest.mark.usefixtures("proved")
def test_a_past_answer_is_given_again_and_explained(trained: Settings) -> None:
    answer = ask(trained)
    in_the_lake(trained)
    code, again = nextclick(trained, "replay", answer["request_id"])
    assert (code, again["same"], again["release"]) == (0, True, answer["release"])
    assert [each["item_id"] for each in again["items"]] == [
        each["item_id"] for each in answer["items"]
    ]
    for served, replayed in zip(answer["items"], again["items"], strict=True):
        assert replayed["replayed"] == pytest.approx(served["score"], abs=3e-5)
        assert list(replayed["sources"]) == served["sources"]
        total = replayed["base"] + sum(replayed["contributions"].values())
        assert total == pytest.approx(replayed["replayed"], abs=1e-6)
