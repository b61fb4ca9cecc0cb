"""Importing files: layouts, visits, what is refused and why, and that nothing is ever dropped."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.events import Reason, Topic
from contracts.settings import Settings
from local_stack.data.importer import DAY_MS, ImportSummary, check_file, import_events

NOON = 1_700_049_600_000  # 2023-11-15T12:00 UTC


class MemorySink:
    def __init__(self) -> None:
        self.sent: list[tuple[Topic, str | None, dict[str, Any]]] = []

    def put(self, topic: Topic, key: str | None, value: bytes, backfill: bool = False) -> None:
        assert backfill, "what a file tells did not become known just now"
        self.sent.append((topic, key, json.loads(value)))

    def flush(self, seconds: float) -> None:
        assert seconds > 0

    def of(self, topic: Topic) -> list[dict[str, Any]]:
        return [value for kind, _, value in self.sent if kind is topic]


class Shop:
    """A folder with a file to import and a lake for what is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sink = folder, MemorySink()
        self.settings = Settings.model_validate({"home": folder / "home"})

    def run(self, path: Path, **options: Any) -> ImportSummary:
        summary = import_events(path, self.settings, self.sink, **options)
        assert summary.rows == summary.accepted + summary.refused.total()
        assert len(self.sink.of(Topic.events)) == summary.accepted
        assert len(self.dead()) == summary.refused.total()
        return summary

    def rows(self, rows: list[dict[str, Any]], **options: Any) -> ImportSummary:
        path = self.folder / "events.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        return self.run(path, **options)

    def csv(self, text: str, name: str = "events.csv", **options: Any) -> ImportSummary:
        path = self.folder / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return self.run(path, **options)

    def dead(self) -> list[dict[str, Any]]:
        files = list(Path(self.settings.lake).rglob("*.parquet"))
        return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def row(second: float = 0, **more: Any) -> dict[str, Any]:
    fields = {"session_id": "s", "item_id": "1", "type": "item_view", "time": NOON}
    return fields | {"time": NOON + int(second * 1000)} | more


REES46 = """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2023-11-15 12:00:05 UTC,cart,20,7,,,5.5,9,s1
2023-11-15 12:00:00 UTC,view,10,8,a.b,acme,3.25,9,s1
2023-11-15 12:31:00 UTC,purchase,20,7,,,5.5,9,s1
"""


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
def test_rees46_as_it_is_published(shop: Shop, name: str) -> None:
    summary = shop.csv(REES46, name)
    assert (summary.layout, summary.accepted) == ("REES46", 3)
    events = [(e["session_id"], e["type"], e["item_id"], e["time"]) for e in shop.sink.of(Topic.events)]  # fmt: skip
    assert events == [
        ("s1", "item_view", "10", NOON),
        ("s1", "add_to_cart", "20", NOON + 5_000),
        ("s1~2", "checkout", "20", NOON + 31 * 60_000),
    ]
    assert shop.sink.of(Topic.products) == [
        {"item_id": "10", "time": NOON, "category": "a.b", "brand": "acme"},
        {"item_id": "20", "time": NOON + 5_000, "category": "7"},
    ]
    assert shop.sink.of(Topic.prices) == [
        {"item_id": "10", "time": NOON, "price": 3.25},
        {"item_id": "20", "time": NOON + 5_000, "price": 5.5},
    ]


def test_keys_part_topics_by_session_and_item(shop: Shop) -> None:
    shop.rows([row(price=1.0)])
    assert [(topic, key) for topic, key, _ in shop.sink.sent] == [
        (Topic.prices, "1"), (Topic.events, "s"),
    ]  # fmt: skip


def test_columns_by_a_mapping(shop: Shop) -> None:
    mapping = {"session": "who", "item": "what", "time": "when", "type": "did", "brand": "maker"}
    text = "who,what,when,did,maker\nu,9,1700049600,view,acme\n"  # seconds
    assert shop.csv(text, mapping=mapping).accepted == 1
    assert shop.sink.of(Topic.events)[0]["time"] == NOON
    assert shop.sink.of(Topic.products)[0]["brand"] == "acme"


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        (None, "found the columns a, b; needed are session_id, item_id, time, type"),
        ({"session": "a"}, "item, time, type is needed too"),
        ({"session": "a", "item": "b", "time": "t", "type": "a"}, "no column t"),
        ({"colour": "a"}, "colour cannot be mapped"),
    ],
)
def test_wrong_columns_are_a_usage_error_with_an_example(
    shop: Shop, mapping: dict[str, str] | None, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as error:
        shop.csv("a,b\n1,2\n", mapping=mapping)
    assert "--map session=" in str(error.value)


def test_files_that_cannot_be_read_are_usage_errors(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no such file"):
        shop.run(shop.folder / "none.csv")
    (shop.folder / "bad.parquet").write_text("no parquet")
    with pytest.raises(UsageError, match="cannot be read"):
        shop.run(shop.folder / "bad.parquet")


def test_prices_and_products_are_told_when_they_change(shop: Shop) -> None:
    prices, brands = [1.0, 1.0, None, 2.0, 1.0], ["a", "a", None, "b", "b"]
    shop.rows([row(n, price=p, brand=b) for n, (p, b) in enumerate(zip(prices, brands, strict=True))])  # fmt: skip
    assert [p["price"] for p in shop.sink.of(Topic.prices)] == [1.0, 2.0, 1.0]
    assert [p["brand"] for p in shop.sink.of(Topic.products)] == ["a", "b"]


BAD: list[tuple[dict[str, Any], Reason]] = [
    ({"session_id": None}, Reason.no_session),
    ({"session_id": " "}, Reason.no_session),
    ({"item_id": None}, Reason.no_item),
    ({"time": None}, Reason.no_time),
    ({"time": "yesterday"}, Reason.bad_time),
    ({"time": "2999-01-01"}, Reason.bad_time),
    ({"time": "2199-01-01"}, Reason.time_in_future),
    ({"time": "-5"}, Reason.bad_time),
    ({"type": "wave"}, Reason.unknown_type),
    ({"type": None}, Reason.unknown_type),
    ({"price": "-1"}, Reason.negative_price),
    ({"price": "cheap"}, Reason.bad_value),
    ({"position": "-1"}, Reason.bad_value),
    ({"session_id": "s" * 300}, Reason.bad_id),
    ({"item_id": "a\x00b"}, Reason.bad_id),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=str)
def test_what_is_wrong_goes_to_the_dead_letters(
    shop: Shop, change: dict[str, Any], reason: Reason
) -> None:
    good = {"session_id": "s", "item_id": "1", "type": "view", "time": "2023-11-15T12:00:00Z"}
    full = {**good, "price": None, "position": None}
    summary = shop.rows([full, {**full, "time": "2023-11-15T12:00:01Z", **change}])
    assert summary.refused == {reason: 1}
    [dead] = shop.dead()
    assert dead["reason"] == reason
    assert dead["origin"] == "import:events.parquet"
    assert json.loads(dead["raw"])["type"] == change.get("type", "view")


def test_repeats_are_refused_by_what_they_say_and_by_their_id(shop: Shop) -> None:
    same = [row(0), row(0), row(0, item_id="2")]
    named = [row(5, event_id="x"), row(900, event_id="x"), row(6, event_id="y")]
    summary = shop.rows([*({"event_id": None} | r for r in same), *named])
    assert summary.refused == {Reason.repeat: 2}
    assert [e["time"] - NOON for e in shop.sink.of(Topic.events)] == [0, 0, 5000, 6000]


def test_a_refused_row_does_not_make_the_next_one_a_repeat(shop: Shop) -> None:
    summary = shop.rows([row(0, event_id="x", price=-1.0), row(1, event_id="x", price=1.0)])
    assert summary.refused == {Reason.negative_price: 1}


def test_broken_lines_of_csv_are_dead_letters(shop: Shop) -> None:
    lines = [
        "session_id,item_id,time,type",
        f"s,1,{NOON},view",
        "s,1,2,3,4,5,6",
        f"s,2,{NOON},view",
    ]
    summary = shop.csv("\n".join(lines) + "\n")
    assert (summary.accepted, dict(summary.refused)) == (2, {Reason.bad_value: 1})
    assert "s,1,2,3,4,5,6" in shop.dead()[0]["raw"]


def test_sessions_are_cut_after_thirty_minutes(shop: Shop) -> None:
    minutes = [0, 30, 60.001, 61, 200]
    shop.rows([row(60 * m, item_id=str(n)) for n, m in reversed(list(enumerate(minutes)))])
    visits = [(e["item_id"], e["session_id"]) for e in shop.sink.of(Topic.events)]
    assert visits == [("0", "s"), ("1", "s"), ("2", "s~2"), ("3", "s~2"), ("4", "s~3")]


def test_shifting_by_whole_days_makes_the_newest_event_a_day_old_at_most(shop: Shop) -> None:
    future = int(time.time() * 1000) + 30 * DAY_MS
    summary = shop.rows([row(0), row(3600), {**row(0), "time": future}], shift_to_now=True)
    times = [event["time"] for event in shop.sink.of(Topic.events)]
    assert summary.refused == {Reason.time_in_future: 1}
    assert [(moved - NOON) - summary.shifted_days * DAY_MS for moved in times] == [0, 3_600_000]
    assert 0 <= time.time() * 1000 - times[-1] < DAY_MS
    assert (summary.first, summary.last) == (times[0], times[-1])


def test_numbers_with_gaps_as_pandas_writes_them(shop: Shop) -> None:
    summary = shop.rows([row(0, item_id=12.0, price=float("nan"), position=3.0)])
    assert summary.accepted == 1
    event = shop.sink.of(Topic.events)[0]
    assert (event["item_id"], event.get("price"), event["position"]) == ("12", None, 3)


cells = st.one_of(
    st.none(), st.text(max_size=6), st.sampled_from(["view", "s", "1", str(NOON), "-1"])
)
lines = st.fixed_dictionaries(
    dict.fromkeys(("session_id", "item_id", "time", "type", "price", "event_id", "device"), cells)
)


@settings(max_examples=15, deadline=None)
@given(st.lists(lines, min_size=1, max_size=8))
def test_whatever_the_rows_are_each_is_accepted_or_refused(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        schema = pa.schema([(name, pa.string()) for name in rows[0]])
        path = Path(folder) / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
        summary = Shop(Path(folder)).run(path)
        assert summary.rows == len(rows)


def test_events_come_in_order_of_time_over_batches(shop: Shop) -> None:
    path = shop.folder / "many.parquet"
    sql = f"SELECT 's' || (i % 97) AS session_id, i % 50 AS item_id, {NOON} + (i * 7919) % 12000 * 1000 AS time, 'view' AS type FROM range(12000) t(i)"  # noqa: S608  # ours
    duckdb.sql(f"COPY ({sql}) TO '{path}'")
    seen: list[tuple[int, int]] = []
    summary = shop.run(path, report=lambda _what, done, of: seen.append((done, of)))
    times = [event["time"] for event in shop.sink.of(Topic.events)]
    assert summary.accepted == 12_000
    assert times == sorted(times)
    assert seen[-1] == (12_000, 12_000)
    assert len(seen) > 1


@pytest.mark.parametrize("compressed", [False, True], ids=["csv", "csv.gz"])
def test_text_that_is_not_utf8_is_refused_whole_with_its_line(
    tmp_path: Path, compressed: bool
) -> None:
    """DuckDB would pass over the line without a word."""
    content = b"session_id,item_id,time,type\ns,a,2026-11-20T10:00:00Z,click\ns\xff,b,2026-11-20T10:00:00Z,click\n"
    path = tmp_path / ("events.csv.gz" if compressed else "events.csv")
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(UsageError, match="line 3: not UTF-8"):
        check_file(path)


def test_what_is_no_file_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for path, said in (
        (tmp_path, "folder"),
        (tmp_path / "no.csv", "no such"),
        (tmp_path / "empty.csv", "empty"),
    ):
        with pytest.raises(UsageError, match=said):
            check_file(path)
