"""Buckets and trends on a real local Spark, beside plain loops over the same facts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.events import EventType
from contracts.features import TREND_WINDOWS, of_view
from contracts.item_features import MEASURES
from contracts.known import LATENESS_MS, counted_at
from contracts.tables import LAKE_COLUMNS, OFFLINE_COLUMNS, Lake, Offline
from spark_jobs.buckets import category_buckets, counted, facts, item_buckets
from spark_jobs.tables import spark_schema
from spark_jobs.windows import DELAY_MS, changes, complete_until, usual_created, window_rows

Row = dict[str, Any]
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
STEP = 5 * MINUTE
NOON = 20_000 * DAY + 12 * HOUR
SIZES = {name: int(size.total_seconds() * 1000) for name, size in TREND_WINDOWS.items()}
# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def frame(spark: Any, columns: dict[str, str], rows: Iterable[Row]) -> Any:
    given = [tuple(row.get(name) for name in columns) for row in rows]
    return spark.createDataFrame(given, spark_schema(columns))


def event(kind: EventType, item: str, time: int, late: int = 0, request: str | None = None) -> Row:
    return {
        "type": int(kind), "item_id": item, "time": time, "received": time + late,
        "request_id": request,
    }  # fmt: skip


def answer(request: str, items: list[str], time: int, received: int | None = None) -> Row:
    known = time if received is None else received
    return {"request_id": request, "items": items, "time": time, "received": known,
            "partition": 0, "offset": known}  # fmt: skip


def bucket(key: str, end: int, entity: str = "item", **counts: int) -> Row:
    return {"entity": entity, "key": key, "end": end, **dict.fromkeys(MEASURES, 0), **counts}


def buckets_of(spark: Any, events: Iterable[Row], answers: Iterable[Row] = ()) -> list[Row]:
    clean = frame(spark, OFFLINE_COLUMNS[Offline.events_clean], events)
    shown = frame(spark, LAKE_COLUMNS[Lake.impressions], answers)
    found = item_buckets(facts(clean, shown)).orderBy("key", "end").collect()
    return [row.asDict() for row in found]


def changed(spark: Any, rows: Iterable[Row], after: int, until: int) -> dict[tuple[str, int], Row]:
    stored = frame(spark, OFFLINE_COLUMNS[Offline.buckets], rows)
    found = changes(stored, after, until).collect()
    answer = {(row["key"], row["at"]): row.asDict() for row in found}
    assert len(answer) == len(found)
    return answer


def test_facts_are_counted_in_the_five_minutes_in_which_they_count(spark: Any) -> None:
    events = [
        event(EventType.item_view, "a", NOON),
        event(EventType.click, "a", NOON + STEP - 1, request="r"),
        event(EventType.click, "a", NOON + STEP),
        event(EventType.add_to_cart, "a", NOON),
        event(EventType.checkout, "a", NOON + 1),
        event(EventType.remove_from_cart, "a", NOON),  # is not counted
        event(EventType.search, "", NOON),
        # known 6 minutes late: it counts a minute after it happened
        event(EventType.item_view, "b", NOON + STEP - MINUTE, late=6 * MINUTE),
        # of a clock that is ahead: when it became known
        event(EventType.item_view, "c", NOON + STEP, late=-1),
    ]
    # a repeat of an answer, told later
    answers = [answer("r", ["a", "b"], NOON), answer("r", ["a", "b"], NOON, NOON + HOUR)]
    assert buckets_of(spark, events, answers) == [
        bucket("a", NOON + STEP, views=2, list_views=1, carts=1, purchases=1, impressions=1),
        bucket("a", NOON + 2 * STEP, views=1),
        bucket("b", NOON + STEP, impressions=1),
        bucket("b", NOON + 2 * STEP, views=1),
        bucket("c", NOON + STEP, views=1),
    ]


def test_when_a_fact_counts_is_the_contracts_to_say(spark: Any) -> None:
    cases = [(NOON, NOON + late) for late in (-STEP, -1, 0, 1, LATENESS_MS, LATENESS_MS + 1, DAY)]
    rows = spark.createDataFrame(cases, "time long, received long")
    found = rows.select("time", "received", counted(F.col("time"), F.col("received"))).collect()
    assert [(time, known, counted_at(time, known)) for time, known in cases] == [
        tuple(row) for row in found
    ]


def test_a_category_counts_what_its_items_had_then(spark: Any) -> None:
    said = [("a", "toys.cars", NOON - DAY), ("a", "gifts", NOON + 2 * STEP), ("b", "toys.cars", 0),
            ("n", None, 0)]  # fmt: skip
    catalogue = spark.createDataFrame(said, "item_id string, category string, at long").select(
        "item_id",
        "category",
        F.timestamp_millis("at").alias("event_timestamp"),
        F.timestamp_millis("at").alias("created_timestamp"),
    )
    items = frame(spark, OFFLINE_COLUMNS[Offline.buckets], [
        bucket("a", NOON + STEP, views=2, carts=1),
        bucket("b", NOON + STEP, views=1),
        bucket("a", NOON + 2 * STEP, views=1),  # the change was known at the bucket's end
        bucket("n", NOON + STEP, views=5),
        bucket("unknown", NOON + STEP, views=7),
    ])  # fmt: skip
    found = category_buckets(items, catalogue).orderBy("key", "end").collect()
    assert [row.asDict() for row in found] == [
        bucket("gifts", NOON + 2 * STEP, "category", views=1),
        bucket("toys.cars", NOON + STEP, "category", views=3, carts=1),
    ]


def test_a_bucket_enters_once_and_leaves_each_window(spark: Any) -> None:
    rows = [bucket("a", NOON, views=3, list_views=2), bucket("a", NOON + HOUR, views=1)]
    found = changed(spark, rows, -1, NOON + 10 * DAY)
    views = {
        at - NOON: (r["views_1h"], r["views_1d"], r["views_7d"]) for (_, at), r in found.items()
    }
    assert views == {
        0: (3, 3, 3),
        HOUR: (1, 4, 4),
        2 * HOUR: (0, 4, 4),
        DAY: (0, 1, 4),
        DAY + HOUR: (0, 0, 4),
        7 * DAY: (0, 0, 1),
        7 * DAY + HOUR: (0, 0, 0),
    }


def test_a_part_of_the_grid_is_that_part_of_the_whole(spark: Any) -> None:
    """The stream computes a stretch at a time, from the buckets of the week before it."""
    chance = random.Random(3)  # noqa: S311
    ends = [NOON + chance.randrange(0, 9 * 24 * 12) * STEP for _ in range(150)]
    counted_rows = {(chance.choice("abc"), end) for end in ends}
    rows = [bucket(key, end, views=chance.randint(1, 9), carts=1) for key, end in counted_rows]
    until = NOON + 9 * DAY
    whole = changed(spark, rows, -1, until)
    parts: dict[tuple[str, int], Row] = {}
    for after in (NOON - 1, NOON + 3 * DAY, NOON + 8 * DAY):
        end = {NOON - 1: NOON + 3 * DAY, NOON + 3 * DAY: NOON + 8 * DAY}.get(after, until)
        part = changed(spark, rows, after, end)
        assert not parts.keys() & part.keys()
        parts |= part
    assert parts == whole
    for (key, at), row in whole.items():
        for name, size in SIZES.items():
            inside = [r for r in rows if r["key"] == key and at - size < r["end"] <= at]
            assert row[f"views_{name}"] == sum(r["views"] for r in inside)


def test_rows_have_the_declared_features_and_the_created_time_of_the_stream(spark: Any) -> None:
    rows = [bucket("a", NOON, views=8, list_views=5, impressions=30), bucket("x", NOON, "category")]
    stored = frame(spark, OFFLINE_COLUMNS[Offline.buckets], rows)
    made = changes(stored, -1, NOON)
    [item] = window_rows(made, "item", usual_created()).collect()
    assert list(item.asDict()) == list(OFFLINE_COLUMNS[Offline.item_windows])
    assert item["event_timestamp"].timestamp() * 1000 == NOON
    assert item["created_timestamp"].timestamp() * 1000 == NOON + DELAY_MS
    assert item["item_click_rate_1h"] == pytest.approx(5 / 50)
    assert item["item_views_7d"] == 8.0
    [category] = window_rows(made, "category", usual_created()).collect()
    assert category["category_name"] == "x"
    declared = Counter(feature.name for feature in of_view("category_windows"))
    assert declared == Counter(list(category.asDict())[3:])


def test_what_is_complete_is_known_by_then() -> None:
    assert complete_until(NOON + DELAY_MS) == NOON
    assert complete_until(NOON + DELAY_MS - 1) == NOON - STEP
