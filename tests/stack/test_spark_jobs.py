"""The jobs on a real local Spark, beside answers that a person can work out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import UsageError
from contracts.events import Event, EventType, parse_event
from contracts.features import text_id
from contracts.session import IDLE_MS, SessionEvent, SessionState, fold, visit
from contracts.settings import Settings
from contracts.tables import LAKE_COLUMNS, OFFLINE_COLUMNS, Lake, Offline
from spark_jobs import jobs
from spark_jobs.catalogue import catalogue
from spark_jobs.clean import clean, count_reasons, parsed
from spark_jobs.item_days import DAY_MS
from spark_jobs.item_features import item_activity
from spark_jobs.session import spark_session
from spark_jobs.sessions import sessions
from spark_jobs.tables import Staging, spark_schema
from spark_jobs.vectors import VectorOptions, item_vectors, visit_items

Row = dict[str, Any]
MINUTE = 60_000
# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("spark")
    return Settings.model_validate({"home": home, "spark_memory": "1g"})


@pytest.fixture(scope="module")
def spark(settings: Settings) -> Iterator[Any]:
    session = spark_session(settings)
    yield session
    session.stop()


def lake_frame(spark: Any, table: Lake, rows: Iterable[Row]) -> Any:
    columns = LAKE_COLUMNS[table]
    given = [tuple(row.get(name) for name in columns) for row in rows]
    return spark.createDataFrame(given, spark_schema(columns))


def event(session: str, kind: str, time: int, item: str | None = None, **more: Any) -> Row:
    made = Event.model_validate(
        {"session_id": session, "type": kind, "time": time, "item_id": item}
    )
    row = {"event_id": made.event_id, "session_id": session, "type": kind, "time": time}
    return {**row, "item_id": item, "received": time, "partition": 0, "offset": 0, **more}


def cleaned(spark: Any, rows: Iterable[Row]) -> Any:
    return clean(parsed(lake_frame(spark, Lake.events, rows)))


# --- clean ---------------------------------------------------------------------------------------


def test_repeats_count_once_and_wrong_rows_are_counted_by_reason(spark: Any) -> None:
    good = event("s", "item_view", 1_000, "a", event_id="e")
    later = {**good, "time": 2_000, "received": 2_000}
    rows = [
        later,
        good,
        good,
        event("s", "click", 3_000, "b"),
        {**good, "item_id": None},
        {**good, "type": "?"},
    ]
    frame = parsed(lake_frame(spark, Lake.events, rows))
    assert count_reasons(frame) == {None: 4, "no_item": 1, "unknown_type": 1}
    found = [(row["time"], row["item_id"], row["type"]) for row in clean(frame).collect()]
    assert found == [(1_000, "a", EventType.item_view), (3_000, "b", EventType.click)]


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


def test_session_rows_are_the_fold_of_what_came_before(spark: Any) -> None:
    chance = seeded(11)
    raw = [row for number in range(20) for row in _random_session(chance, f"s{number}")]
    names = Event.model_fields
    events = [
        parse_event({k: v for k, v in row.items() if k in names and v is not None}, 1 << 62)
        for row in raw
    ]
    at_ms = F.unix_millis("event_timestamp").alias("at")
    found = sessions(cleaned(spark, raw)).select("*", at_ms).collect()
    assert len(found) == len(
        {(e.session_id, e.time) for e in events if e.type != EventType.heartbeat}
    )
    for row in found:
        at = row["at"]
        before = [e for e in events if e.session_id == row["session_id"] and e.time <= at]
        state = fold(SessionState(), before)
        assert {name: row[name] for name in state.columns()} == state.columns()
        assert row["session_events"] == len(visit(state, at))


# --- item activity -------------------------------------------------------------------------------


def days_rows(frame: Any) -> dict[tuple[str, datetime], Row]:
    return {
        (row["item_id"], row["event_timestamp"].replace(tzinfo=UTC)): row.asDict()
        for row in frame.collect()
    }


def day_end(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day + 1)


def test_windows_of_one_item(spark: Any) -> None:
    noon = DAY_MS // 2
    rows = [
        event("s", "item_view", 100 * DAY_MS + noon, "a"),
        event("s", "click", 100 * DAY_MS + noon + 1, "a", request_id="r1"),
        event("s", "add_to_cart", 100 * DAY_MS + noon + 2, "a"),
        event("s", "item_view", 107 * DAY_MS + noon, "a"),
    ]
    lists = [
        {"request_id": "r1", "session_id": "s", "time": 100 * DAY_MS, "items": ["a", "b"]},
        {"request_id": "r1", "session_id": "s", "time": 100 * DAY_MS, "items": ["a", "b"]},  # twice
    ]
    now = 200 * DAY_MS
    found = days_rows(
        item_activity(cleaned(spark, rows), lake_frame(spark, Lake.impressions, lists), now)
    )
    days_of_a = sorted(at for item, at in found if item == "a")
    assert days_of_a == [day_end(day) for day in range(100, 138)], "until the day all falls to zero"
    assert sorted(at for item, at in found if item == "b")[0] == day_end(100), (
        "shown, never clicked"
    )
    first = found["a", day_end(100)]
    assert (first["views_1d"], first["views_7d"], first["carts_30d"]) == (2, 2, 1)
    assert first["cart_rate_30d"] == pytest.approx(1 / 12)
    assert first["impressions_7d"] == 1
    assert first["click_rate_7d"] == pytest.approx(1 / 21)
    assert first["trend_7d"] == pytest.approx(3 / 1.5)
    assert first["created_timestamp"] > first["event_timestamp"]
    eighth = found["a", day_end(107)]
    assert (eighth["views_1d"], eighth["views_7d"], eighth["views_30d"]) == (1, 1, 3)
    assert (eighth["impressions_7d"], eighth["days_since_seen"]) == (0, 0.5)
    assert eighth["days_since_new"] == 7.5
    last = found["a", day_end(137)]
    assert (last["views_30d"], last["carts_30d"], last["days_since_seen"]) == (0, 0, 30.5)
    assert found["b", day_end(100)]["days_since_seen"] is None


def test_the_day_under_way_has_no_row_and_counts_nowhere(spark: Any) -> None:
    midnight = 100 * DAY_MS
    now = midnight + 5 * MINUTE
    rows = [event("s", "click", at, "a") for at in (midnight - 1, midnight, now - 1)]
    found = days_rows(
        item_activity(cleaned(spark, rows), lake_frame(spark, Lake.impressions, []), now)
    )
    assert list(found) == [("a", day_end(99))]
    assert found["a", day_end(99)]["views_1d"] == 1


def test_windows_equal_counting_by_hand(spark: Any) -> None:
    """Random events; the oracle counts, for each row, the events that lie in the window."""
    chance = seeded(3)
    kinds = ["item_view", "click", "add_to_cart", "checkout", "remove_from_cart"]
    rows = [
        event("s", chance.choice(kinds), chance.randrange(80 * DAY_MS), chance.choice("abcd"), event_id=str(n))
        for n in range(60)
    ]  # fmt: skip
    now = 75 * DAY_MS + 1234
    frame = item_activity(cleaned(spark, rows), lake_frame(spark, Lake.impressions, []), now)
    found = days_rows(frame)
    counted = {
        ("views_1d", 1),
        ("views_7d", 7),
        ("views_30d", 30),
        ("carts_30d", 30),
        ("purchases_30d", 30),
    }
    types = {"views": {"item_view", "click"}, "carts": {"add_to_cart"}, "purchases": {"checkout"}}
    expected_rows = set()
    for item in "abcd":
        mine = [row for row in rows if row["item_id"] == item and row["time"] < 75 * DAY_MS]
        active = {row["time"] // DAY_MS for row in mine if row["type"] != "remove_from_cart"}
        for day in range(75):
            if not any(0 <= day - other <= 30 for other in active):
                continue
            at = day_end(day)
            expected_rows.add((item, at))
            for name, length in counted:
                window = [r for r in mine if day - length < r["time"] // DAY_MS <= day]
                kind = types[name.split("_")[0]]
                assert found[item, at][name] == sum(r["type"] in kind for r in window), (
                    item,
                    day,
                    name,
                )
    assert set(found) == expected_rows


# --- catalogue -----------------------------------------------------------------------------------


def test_the_catalogue_keeps_what_a_message_leaves_out(spark: Any) -> None:
    def message(time: int, **values: Any) -> Row:
        # received long after: a backfill
        return {
            "item_id": "a",
            "time": time,
            "received": 10**12,
            "partition": 0,
            "offset": time,
            **values,
        }

    products = [message(1_000, category="x.y", brand="b"), message(3_000, brand="c")]
    prices = [message(2_000, price=5.0), message(4_000, available=False), message(5_000, price=5.0)]
    frame = catalogue(
        lake_frame(spark, Lake.products, products), lake_frame(spark, Lake.prices, prices)
    )
    found = sorted(frame.collect(), key=lambda row: row["event_timestamp"])
    assert frame.columns == list(OFFLINE_COLUMNS[Offline.item_catalogue])
    assert [
        (r["event_timestamp"].second, r["category"], r["brand"], r["price"], r["available"])
        for r in found
    ] == [
        (1, "x.y", "b", None, 1),
        (2, "x.y", "b", 5.0, 1),
        (3, "x.y", "c", 5.0, 1),
        (4, "x.y", "c", 5.0, 0),  # and the last message changed nothing
    ]
    assert [r["brand_id"] for r in found] == [text_id(brand) for brand in "bbcc"]
    assert {r["created_timestamp"] - r["event_timestamp"] for r in found} == {timedelta(seconds=1)}


# --- vectors -------------------------------------------------------------------------------------


def shop_with_two_aisles(cutoff: int) -> Iterator[Row]:
    """Visits stay in one aisle of four items; after the cut-off someone sees a new item."""
    chance = seeded(5)
    for number in range(200):
        aisle = ["a1", "a2", "a3", "a4"] if number % 2 else ["b1", "b2", "b3", "b4"]
        for step in range(6):
            yield event(
                f"s{number}",
                "click",
                cutoff - 10_000 + step,
                chance.choice(aisle),
                event_id=f"{number}-{step}",
            )
    yield event("late", "click", cutoff, "new", event_id="1")
    yield event("late", "click", cutoff + 1, "a1", event_id="2")


def test_vectors_of_one_aisle_are_near_and_know_nothing_after_the_cutoff(spark: Any) -> None:
    cutoff = 10 * DAY_MS
    visits = visit_items(cleaned(spark, shop_with_two_aisles(cutoff)))
    options = VectorOptions(dimensions=8, least=1)
    vectors = {r["item_id"]: r["vector"] for r in item_vectors(visits, cutoff, options).collect()}
    assert set(vectors) == {f"{aisle}{n}" for aisle in "ab" for n in range(1, 5)}
    assert {len(vector) for vector in vectors.values()} == {8}

    def cosine(one: str, other: str) -> float:
        a, b = vectors[one], vectors[other]
        norms = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
        return float(sum(x * y for x, y in zip(a, b, strict=True)) / norms)

    assert min(cosine("a1", "a2"), cosine("b1", "b2")) > cosine("a1", "b1") + 0.2
    again = {r["item_id"]: r["vector"] for r in item_vectors(visits, cutoff, options).collect()}
    assert again == vectors, "the same events give the same vectors"
    assert item_vectors(visits, 0, options).collect() == []


# --- the whole -----------------------------------------------------------------------------------


def write_lake(settings: Settings, table: Lake, rows: list[Row]) -> None:
    kinds = {"double": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [(n, kinds.get(k) or pa.type_for_alias(k)) for n, k in LAKE_COLUMNS[table].items()]
    )
    folder = Path(settings.lake) / table.value / "day=1970-01-11"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "part.parquet")


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
    assert told[0] == ("start Spark", 0, 8)
    assert told[-1] == ("done", 8, 8)
    assert json.loads(json.dumps(summary))["rows"]["events_clean"] == 1202
    cutoffs = summary["windows"]["cutoffs"]
    for table in Offline:
        part = f"/cutoff={cutoffs[-1]}" if table is Offline.item_vectors else ""
        columns = pq.read_schema(
            next((tmp_path / f"o/{table.value}{part}").glob("*.parquet"))
        ).names
        assert columns == list(OFFLINE_COLUMNS[table])

    before = sorted(path for path in (tmp_path / "o").rglob("*.parquet"))

    def broken(_run: jobs.Run) -> None:
        raise UsageError("broken")

    monkeypatch.setitem(jobs.JOBS, "vectors", broken)
    with pytest.raises(UsageError, match="broken"):
        jobs.run_jobs(own, list(jobs.JOBS), None, lambda *_: None)
    assert sorted(path for path in (tmp_path / "o").rglob("*.parquet")) == before
    assert not list((tmp_path / "o").glob(".staging-*"))
