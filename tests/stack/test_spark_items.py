"""Item tables on a real local Spark, beside answers that a person can work out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.features import text_id
from contracts.known import counted_at
from contracts.tables import (
    OFFLINE_COLUMNS,
    Lake,
    Offline,
)
from spark_jobs.catalogue import catalogue
from spark_jobs.clean import first_known
from spark_jobs.item_days import DAY_MS
from spark_jobs.item_features import item_activity
from tests.stack.spark_shop import (
    MINUTE,
    Row,
    event,
    lake_frame,
    seeded,
    sent,
)

# Py4J and PySpark leave sockets to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def activity(spark: Any, rows: Iterable[Row], lists: Iterable[Row], now: int) -> Any:
    shown = lake_frame(spark, Lake.impressions, lists)
    return item_activity(first_known(sent(spark, rows)), shown, now)


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
        {"request_id": "r1", "time": 100 * DAY_MS, "received": 100 * DAY_MS, "items": ["a", "b"]},
        {
            "request_id": "r1",
            "time": 100 * DAY_MS,
            "received": 101 * DAY_MS,
            "items": ["a", "b"],
        },  # twice
    ]
    now = 200 * DAY_MS
    found = days_rows(activity(spark, rows, lists, now))
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


def test_a_day_has_its_row_when_all_of_it_is_known(spark: Any) -> None:
    midnight = 100 * DAY_MS
    late = event("s", "click", midnight - 2, "a", received=midnight + 5 * MINUTE - 2)
    rows = [late, *(event("s", "click", at, "a") for at in (midnight - 1, midnight))]
    assert activity(spark, rows, [], midnight + 10 * MINUTE - 1).collect() == []
    found = days_rows(activity(spark, rows, [], midnight + 10 * MINUTE))
    assert list(found) == [("a", day_end(99))]
    assert found["a", day_end(99)]["views_1d"] == 2
    created = found["a", day_end(99)]["created_timestamp"].replace(tzinfo=UTC)
    assert created == day_end(99) + timedelta(minutes=10)


def test_an_event_that_comes_late_counts_when_it_becomes_known(spark: Any) -> None:
    midnight = 100 * DAY_MS
    first = event("s", "click", midnight - MINUTE, "a")
    late = event("t", "click", midnight - MINUTE, "a", received=midnight + 5 * MINUTE)
    changed = {**first, "time": midnight + 1, "received": midnight + 2}
    shown = {"request_id": "r", "time": midnight - 1, "received": midnight + DAY_MS, "items": ["a"]}
    found = days_rows(activity(spark, [first, late, changed], [shown], midnight + 3 * DAY_MS))
    assert [found["a", day_end(day)]["views_1d"] for day in (99, 100, 101)] == [1, 1, 0]
    assert [found["a", day_end(day)]["impressions_7d"] for day in (99, 100, 101)] == [0, 1, 1]
    assert found["a", day_end(100)]["days_since_seen"] == 1, "it counts from midnight on"


def test_windows_equal_counting_by_hand(spark: Any) -> None:
    """Random events; the oracle counts, for each row, the events that lie in the window."""
    chance = seeded(3)
    kinds = ["item_view", "click", "add_to_cart", "checkout", "remove_from_cart"]
    rows = [
        event("s", chance.choice(kinds), chance.randrange(80 * DAY_MS), chance.choice("abcd"), event_id=str(n))
        for n in range(60)
    ]  # fmt: skip
    for row in rows:
        row["received"] += chance.choice([0, 0, DAY_MS // 2, 3 * DAY_MS])
        row["at"] = counted_at(row["time"], row["received"])
    now = 75 * DAY_MS + 10 * MINUTE
    found = days_rows(activity(spark, rows, [], now))
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
        mine = [row for row in rows if row["item_id"] == item and row["at"] < 75 * DAY_MS]
        active = {row["at"] // DAY_MS for row in mine if row["type"] != "remove_from_cart"}
        for day in range(75):
            if not any(0 <= day - other <= 30 for other in active):
                continue
            at = day_end(day)
            expected_rows.add((item, at))
            for name, length in counted:
                window = [r for r in mine if day - length < r["at"] // DAY_MS <= day]
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
        return {"item_id": "a", "time": time, "received": time, "offset": time, **values}

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


def test_a_late_word_of_the_catalogue_is_known_from_when_it_came(spark: Any) -> None:
    products = [
        {"item_id": "a", "time": 1_000, "received": 1_000, "brand": "b"},
        {"item_id": "a", "time": 2_000, "received": 60_000, "brand": "c"},
    ]
    prices = [{"item_id": "a", "time": 3_000, "received": 3_000, "price": 5.0}]
    frame = catalogue(
        lake_frame(spark, Lake.products, products), lake_frame(spark, Lake.prices, prices)
    )
    found = [
        (r["event_timestamp"].second, r["created_timestamp"].second, r["brand"], r["price"])
        for r in frame.orderBy("created_timestamp", "event_timestamp").collect()
    ]
    assert found == [(1, 2, "b", None), (3, 4, "b", 5.0), (2, 1, "c", None), (3, 1, "c", 5.0)]
