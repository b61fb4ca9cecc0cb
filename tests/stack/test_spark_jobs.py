"""The jobs on a real local Spark, beside answers that a person can work out: events and sessions,
and a whole run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import UsageError
from contracts.events import EventType, parse_event
from contracts.session import IDLE_MS, SessionEvent, SessionState, fold, visit
from contracts.settings import Settings
from contracts.tables import (
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    OFFLINE_COLUMNS,
    Lake,
    Offline,
)
from spark_jobs import jobs
from spark_jobs.clean import clean, count_reasons, first_known, messages, parsed
from spark_jobs.item_days import DAY_MS
from spark_jobs.sessions import session_rows, sessions
from spark_jobs.tables import Staging
from spark_jobs.walk import Told
from tests.stack.spark_shop import (
    MINUTE,
    Row,
    cleaned,
    event,
    lake_frame,
    late_shop,
    seeded,
    sent,
    shop_with_two_aisles,
    write_lake,
)

# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def settings(spark_home: Settings) -> Settings:
    return spark_home


# --- clean ---------------------------------------------------------------------------------------


def test_repeats_count_once_and_wrong_rows_are_counted_by_reason(spark: Any) -> None:
    good = event("s", "item_view", 1_000, "a", event_id="e")
    later = {**good, "time": 2_000, "received": 5_000}
    rows = [
        good,
        later,
        good,
        later,
        event("s", "click", 3_000, "b"),
        {**good, "item_id": None},
        {**good, "type": "?"},
    ]
    frame = parsed(lake_frame(spark, Lake.events, rows))
    assert count_reasons(frame) == {None: 5, "no_item": 1, "unknown_type": 1}
    told = messages(frame)
    found = [
        (row["time"], row["item_id"], row["type"], row["offset"], row["received"])
        for row in clean(told).collect()
    ]
    assert found == [
        (2_000, "a", EventType.item_view, 1, 5_000),
        (3_000, "b", EventType.click, 4, 5_000),  # known after what lies before it
    ]
    first = [(row["time"], row["offset"]) for row in first_known(told).orderBy("time").collect()]
    assert first == [(1_000, 0), (3_000, 4)]


def test_what_counts_of_an_event_told_twice_is_the_folds_to_say(spark: Any) -> None:
    chance = seeded(23)
    rows = [_again(chance, n) for n in range(300)]
    told = by_session(sent(spark, rows).collect())
    found = by_session(cleaned(spark, rows).collect())
    assert sum(map(len, told.values())) == len(rows) > sum(map(len, found.values()))
    for session, mine in told.items():
        assert tuple(found[session]) == fold(SessionState(), mine).events


def by_session(rows: Iterable[Any]) -> dict[str, list[SessionEvent]]:
    names = ("time", "key", "type", "item_id", "position", "device", "source", "offset")
    found: dict[str, list[SessionEvent]] = {}
    for row in rows:
        found.setdefault(row["session_id"], []).append(SessionEvent(*(row[name] for name in names)))
    return found


def _again(chance: random.Random, offset: int) -> Row:
    """One of few ids, of few contents."""
    kind, item = chance.choice(["item_view", "click"]), chance.choice("ab")
    time, number = chance.randrange(3), chance.randrange(30)
    return event(
        f"s{number % 3}",
        kind,
        1_000 + time,
        item,
        event_id=str(number),
        received=5_000,
        offset=offset,
    )


def test_visits_are_those_of_the_contract(spark: Any) -> None:
    """Random sessions with pauses around the limit; the oracle asks `visit` after each event."""
    chance = seeded(7)
    rows = [row for number in range(60) for row in _random_session(chance, f"s{number}")]
    by_session: dict[str, list[Row]] = {}
    for row in cleaned(spark, rows).collect():
        by_session.setdefault(row["session_id"], []).append(row.asDict())
    assert len(by_session) == 60
    for session, found in by_session.items():
        assert [row["visit"] for row in found] == _visits(session, found)


def _random_session(chance: random.Random, session: str) -> list[Row]:
    pauses = (0, 1, 10 * MINUTE, IDLE_MS, IDLE_MS + 1, 50 * MINUTE)
    rows, time = [], 1_000_000
    for number in range(chance.randint(1, 14)):
        time += chance.choice(pauses)
        kind = chance.choice(["item_view", "click", "heartbeat"])
        item = None if kind == "heartbeat" else chance.choice("abc")
        rows.append(event(session, kind, time, item, event_id=f"{session}-{number}"))
    chance.shuffle(rows)
    return rows


def _visits(session: str, rows: list[Row]) -> list[str]:
    """The visit of each row: a new one where the contract's visit begins with the row itself."""
    state, number, names = SessionState(), 1, []
    for row in rows:
        if row["type"] != EventType.heartbeat:
            alone = not visit(state, row["time"])
            number += bool(state.events) and alone
            state = fold(
                state,
                [SessionEvent(row["time"], row["key"], row["type"], row["item_id"], -1, 0, 0)],
            )
        names.append(session if number == 1 else f"{session}~{number}")
    return names


# --- sessions ------------------------------------------------------------------------------------


def test_the_session_table_is_the_history_of_each_session(spark: Any) -> None:
    """What is late, repeated and written twice to the lake, in files of any order."""
    chance = seeded(11)
    rows = [
        {**row, "received": row["time"] + chance.choice([0, 5, 20 * MINUTE])}
        for number in range(20)
        for row in _random_session(chance, f"s{number}")
    ]
    rows.sort(key=lambda row: row["received"])
    rows = [{**row, "offset": offset} for offset, row in enumerate(rows)]
    told: dict[str, list[Told]] = {}
    for row in rows:
        names = ("event_id", "session_id", "type", "time", "item_id")
        made = parse_event({name: row[name] for name in names if row[name]}, 1 << 62)
        event_then = SessionEvent.of(made, row["offset"])
        told.setdefault(row["session_id"], []).append(Told(row["received"], event_then))
    doubled = [*rows, *rows[::3]]
    chance.shuffle(doubled)
    stamps = [F.unix_millis(name).alias(name) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    found = [
        row.asDict() for row in sessions(sent(spark, doubled)).select(*VALUES, *stamps).collect()
    ]
    expected = [
        {**row, **{name: _milliseconds(row[name]) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)}}
        for session, mine in told.items()
        for row in session_rows(session, mine)
    ]
    assert _sorted(found) == _sorted(expected)


VALUES = [
    name
    for name in OFFLINE_COLUMNS[Offline.session]
    if name not in {EVENT_TIMESTAMP, CREATED_TIMESTAMP}
]


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _sorted(rows: list[Row]) -> list[str]:
    """Each as text, in which nan equals itself and a float is what 32 bits keep of it."""
    kinds = OFFLINE_COLUMNS[Offline.session]
    kept = [
        {n: repr(np.float32(v)) if kinds[n] == "float" else v for n, v in row.items()}
        for row in rows
    ]
    return sorted(repr(sorted(row.items())) for row in kept)


def test_a_session_of_several_partitions_is_in_the_order_of_time(spark: Any) -> None:
    """The topic was given other partitions: offsets of the two do not compare."""
    rows = [
        event("s", "click", 1_000, "a", partition=0, offset=90),
        event("s", "click", 2_000, "b", partition=0, offset=91),
        event("s", "click", 3_000, "c", partition=7, offset=5),
        event("s", "click", 4_000, "d", partition=7, offset=6),
    ]
    found = sessions(sent(spark, rows)).orderBy(CREATED_TIMESTAMP).collect()
    assert [row["event_item"] for row in found] == [list("abcd"[:n]) for n in range(1, 5)]


# --- the whole -----------------------------------------------------------------------------------


def test_an_empty_lake_says_what_to_do(spark: Any, settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(
        update={"lake": str(tmp_path / "lake"), "offline": str(tmp_path / "o")}
    )
    run = jobs.Run(spark, empty, Staging(spark, empty), None)
    with pytest.raises(
        UsageError, match=r"holds no events: bring some, ./nextclick data import FILE"
    ):
        jobs.run_clean(run)


def test_a_run_writes_every_table_and_a_broken_one_leaves_the_old(
    spark: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings.model_copy(
        update={"lake": str(tmp_path / "lake"), "offline": str(tmp_path / "o")}
    )
    write_lake(own, Lake.events, list(shop_with_two_aisles(10 * DAY_MS)))
    monkeypatch.setattr(jobs, "spark_session", lambda _settings: spark)
    monkeypatch.setattr(spark, "stop", lambda: None)
    told: list[tuple[str, int, int]] = []
    summary = jobs.run_jobs(own, list(jobs.JOBS), None, lambda *step: told.append(step))
    assert told[0] == ("start Spark", 0, len(jobs.JOBS) + 2)
    assert told[-1] == ("done", len(jobs.JOBS) + 2, len(jobs.JOBS) + 2)
    assert json.loads(json.dumps(summary))["rows"]["events_clean"] == 1202
    for table in set(Offline) - {Offline.item_vectors}:  # a training writes those
        columns = pq.read_schema(next((tmp_path / f"o/{table.value}").rglob("*.parquet"))).names
        assert columns == list(OFFLINE_COLUMNS[table])

    before = sorted(path for path in (tmp_path / "o").rglob("*.parquet"))

    def broken(_run: jobs.Run) -> None:
        raise UsageError("broken")

    monkeypatch.setitem(jobs.JOBS, "queries", broken)
    with pytest.raises(UsageError, match="broken"):
        jobs.run_jobs(own, list(jobs.JOBS), None, lambda *_: None)
    assert sorted(path for path in (tmp_path / "o").rglob("*.parquet")) == before
    assert not list((tmp_path / "o").glob(".staging-*"))


# --- built again, elsewhere and later -------------------------------------------------------------


def test_tables_that_are_built_again_later_hold_every_row_that_they_held_before(
    spark: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five days of a shop of which a quarter is known late, some of it told twice: as of four
    moments, each into a place of its own."""
    monkeypatch.setattr(jobs, "spark_session", lambda _settings: spark)
    monkeypatch.setattr(spark, "stop", lambda: None)
    own = settings.model_copy(update={"lake": str(tmp_path / "lake")})
    for table, rows in late_shop(seeded(31)).items():
        write_lake(own, table, rows)
    names = ["clean", "sessions", "catalogue", "activity"]
    before: dict[Offline, set[str]] = {}
    for now in (2 * DAY_MS + 11 * MINUTE, 3 * DAY_MS + 10 * MINUTE, 4 * DAY_MS, 9 * DAY_MS):
        place = own.model_copy(update={"offline": str(tmp_path / f"as of {now}")})
        jobs.run_jobs(place, names, now, lambda *_: None)
        found = {kept: _rows_of(place, kept) for kept in KEPT}
        for kept, rows_then in before.items():
            assert rows_then, kept
            assert rows_then <= found[kept], kept
        before = found
    assert not (tmp_path / "offline").exists()


KEPT = (Offline.session, Offline.item_catalogue, Offline.item_activity)
"""Tables of which rows never change. `events_clean` and `queries` say what counts in the end."""


def _rows_of(settings: Settings, table: Offline) -> set[str]:
    found = pq.read_table(Path(settings.offline) / table.value).to_pylist()
    texts = [repr(row) for row in found]
    assert len(set(texts)) == len(texts)
    return set(texts)
