"""Item features frozen at a moment, beside a plain count of the events before it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from contracts.events import EventType
from contracts.features import of_view
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from training.frozen import FrozenItems, frozen_reader

DAY = 86_400_000
MIDNIGHT = 20_000 * DAY
MOMENT = MIDNIGHT + DAY // 2
ITEMS = [f"i{number}" for number in range(6)]
KINDS = (EventType.item_view, EventType.click, EventType.add_to_cart, EventType.checkout)


def table(rows: list[tuple[str, int, int]]) -> pa.Table:
    items, times, kinds = zip(*rows, strict=True)
    return pa.table(
        {
            "item_id": pa.array(items), "time": pa.array(times, pa.int64()),
            "received": pa.array(times, pa.int64()), "type": pa.array(kinds, pa.int32()),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, int, int]]:
    """Every item has a view two days before the moment, so that each has a row of today."""
    rng = np.random.default_rng(5)
    drawn = [
        (ITEMS[int(rng.integers(6))], MOMENT - int(rng.integers(50 * DAY)), int(rng.choice(KINDS)))
        for _ in range(800)
    ]
    return [*drawn, *((item, MOMENT - 2 * DAY, int(EventType.item_view)) for item in ITEMS)]


def count(rows: list[tuple[str, int, int]], item: str, days: int, *kinds: EventType) -> int:
    """Whole days: what happened today is not in a row yet."""
    return sum(
        name == item and kind in kinds and MIDNIGHT - days * DAY <= time < MIDNIGHT
        for name, time, kind in rows
    )


def test_windows_are_plain_counts(rows: list[tuple[str, int, int]]) -> None:
    found = FrozenItems.of(table(rows), None, MOMENT).take(ITEMS)
    views = (EventType.item_view, EventType.click)
    for place, item in enumerate(ITEMS):
        for days in (1, 7, 30):
            assert found[f"views_{days}d"][place] == count(rows, item, days, *views)
        carts = count(rows, item, 30, EventType.add_to_cart)
        assert found["carts_30d"][place] == carts
        assert found["purchases_30d"][place] == count(rows, item, 30, EventType.checkout)
        month, ever = count(rows, item, 30, *views), count(rows, item, 1000, *views)
        assert found["cart_rate_30d"][place] == pytest.approx(carts / (month + 10), rel=1e-6)
        assert found["views_share_30d"][place] == pytest.approx(month / (ever + 1), rel=1e-6)


def test_nothing_at_or_after_the_moment_is_known(rows: list[tuple[str, int, int]]) -> None:
    later = [(item, MOMENT + step, int(EventType.click)) for item in ITEMS for step in range(5)]
    unheard = [("new", MOMENT, int(EventType.click))]
    plain = FrozenItems.of(table(rows), None, MOMENT).take([*ITEMS, "new"])
    found = FrozenItems.of(table([*rows, *later, *unheard]), None, MOMENT).take([*ITEMS, "new"])
    for name, values in plain.items():
        np.testing.assert_array_equal(found[name], values)
    assert np.isnan(found["views_7d"][-1])
    assert found["category_id"][-1] == 0


def test_what_came_late_counts_when_it_became_known() -> None:
    """As in Spark's rows: of yesterday and told today, it is in no row yet."""
    yesterday = MIDNIGHT - 3_600_000
    events = table([("a", yesterday, 2), ("a", yesterday, 2), ("a", yesterday, 2)])
    told = [yesterday, MIDNIGHT + 299_000, MIDNIGHT + 300_000]  # 5 minutes are no delay
    late = events.set_column(2, "received", pa.array(told, pa.int64()))
    assert FrozenItems.of(late, None, MOMENT).take(["a"])["views_1d"].tolist() == [2]


def test_the_catalogue_is_what_was_said_last_before_the_moment() -> None:
    at = [MOMENT - 9 * DAY, MOMENT - DAY, MOMENT + DAY]
    moments = pa.array(at, pa.timestamp("ms", "UTC"))
    catalogue = pa.table(
        {
            "item_id": ["a"] * 3, EVENT_TIMESTAMP: moments, CREATED_TIMESTAMP: moments,
            "category_id": [1, 2, 3], "brand_id": [4, 5, 6], "available": [1, 0, 1],
            "price": pa.array([10, 20, 30], pa.float32()),
        }
    )  # fmt: skip
    events = table([("b", MOMENT - DAY, 2)])
    found = FrozenItems.of(events, catalogue, MOMENT).take(["a", "b"])
    assert found["category_id"].tolist() == [2, 0]
    assert found["available"].tolist() == [0, 1]
    assert found["price"][0] == 20
    assert np.isnan(found["price"][1])


def test_a_reader_gives_columns_in_the_order_of_what_is_asked() -> None:
    items = FrozenItems.of(table([("b", MOMENT - DAY, 2)]), None, MOMENT)
    read = frozen_reader(items, {("s", 5): {"session_events": 3.0, "device": 1.0}})
    moments = pd.to_datetime([5, 5], unit="ms", utc=True)
    sessions = read(
        pd.DataFrame({"session_id": ["s", "s"], EVENT_TIMESTAMP: moments}), ("session", "context")
    )
    assert sessions["session_events"].tolist() == [3, 3]
    assert np.isnan(sessions["session_items"]).all()
    known = read(
        pd.DataFrame({"item_id": ["x", "b"], EVENT_TIMESTAMP: moments}), ("item_activity",)
    )
    assert known["views_7d"].tolist()[1] == 1
    assert np.isnan(known["views_7d"][0])


# --- the row that holds at a moment, beside days counted one by one -------------------------------

VIEWS = (EventType.item_view, EventType.click)
COUNTED = (*VIEWS, EventType.add_to_cart, EventType.checkout)
Event = tuple[str, int, int]


def activity_of(events: list[Event], item: str, moment: int) -> dict[str, float] | None:
    """The features of the newest day before the moment's that has a row: one that an event of the
    item lies in, or in the 30 days before. None without one, or where it ended over 3 days ago."""
    today = moment // DAY
    own = [(time, kind) for name, time, kind in events if name == item and kind in COUNTED]
    days = {time // DAY for time, _ in own}
    rows = [
        day for day in range(today - 120, today) if any(day - past in days for past in range(31))
    ]
    if not rows or moment - (rows[-1] + 1) * DAY > 3 * DAY:
        return None
    end = (rows[-1] + 1) * DAY

    def total(length: int, *kinds: int) -> int:
        return sum(kind in kinds and end - length * DAY <= time < end for time, kind in own)

    seen = [time for time, kind in own if kind in VIEWS and time < end]
    month, week = total(30, *VIEWS), total(7, *VIEWS)
    carts, bought = total(30, EventType.add_to_cart), total(30, EventType.checkout)
    return {
        "views_1d": total(1, *VIEWS), "views_7d": week, "views_30d": month,
        "views_share_30d": month / (len(seen) + 1),
        "carts_30d": carts, "purchases_30d": bought,
        "cart_rate_30d": carts / (month + 10), "purchase_rate_30d": bought / (month + 10),
        "trend_7d": (week + 1) / (month / 4 + 1),
        "days_since_seen": (end - max(seen)) / DAY if seen else np.nan,
        "days_since_new": min(30.0, (end - min(seen)) / DAY) if seen else np.nan,
        "impressions_7d": 0, "click_rate_7d": 0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_row_is_that_of_days_counted_one_by_one(seed: int) -> None:
    """Items of a few events in 80 days: some have no row any more, some one of days ago."""
    rng = np.random.default_rng(seed)
    moment = MIDNIGHT + int(rng.integers(DAY))
    kinds = [*COUNTED, EventType.remove_from_cart, EventType.heartbeat]
    events: list[Event] = [
        (f"n{number}", moment - int(rng.integers(oldest)), int(kinds[int(rng.integers(6))]))
        for number in range(60)
        for oldest in [DAY * int(rng.integers(1, 80))]
        for _ in range(int(rng.integers(1, 7)))
    ]
    names = sorted({name for name, _, _ in events})
    found = FrozenItems.of(table(events), None, moment).take(names)
    rowless = 0
    for place, name in enumerate(names):
        expected = activity_of(events, name, moment)
        rowless += expected is None
        for feature in of_view("item_activity"):
            value = np.nan if expected is None else expected[feature.name]
            assert found[feature.name][place] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert 0 < rowless < len(names)


def test_a_row_holds_for_three_days_after_its_windows_are_empty() -> None:
    """Of a view 34 days ago the last row ended three days ago: it is not older than that yet."""
    events = table([("old", MIDNIGHT - 34 * DAY, int(EventType.click))])
    last = FrozenItems.of(events, None, MIDNIGHT).take(["old"])
    assert last["views_30d"][0] == 0
    assert last["days_since_seen"][0] == 31
    assert last["days_since_new"][0] == 30  # beyond the longest window ages are alike
    gone = FrozenItems.of(events, None, MIDNIGHT + 1).take(["old"])
    assert np.isnan(gone["views_30d"][0])
    assert np.isnan(gone["days_since_seen"][0])


def test_a_day_ends_at_midnight() -> None:
    """A view in the last millisecond before midnight is yesterday's, one at midnight is today's and
    in no row; one at the beginning of a window is in it, one before is not."""
    at = [MIDNIGHT - 1, MIDNIGHT, MIDNIGHT - 7 * DAY, MIDNIGHT - 7 * DAY - 1]
    found = FrozenItems.of(table([("a", time, 2) for time in at]), None, MOMENT).take(["a"])
    assert [found[f"views_{days}d"][0] for days in (1, 7, 30)] == [1, 2, 3]
    assert found["days_since_seen"][0] == pytest.approx(1 / DAY, rel=1e-3)
    today = FrozenItems.of(table([("a", MIDNIGHT, 2)]), None, MOMENT).take(["a"])
    assert np.isnan(today["views_1d"][0])


def test_what_became_known_later_does_not_count() -> None:
    late = table([("a", MOMENT - 2 * DAY, 2), ("a", MOMENT - 2 * DAY, 2)])
    received = pa.array([MOMENT - DAY, MOMENT], pa.int64())
    late = late.set_column(late.schema.get_field_index("received"), "received", received)
    assert FrozenItems.of(late, None, MOMENT).take(["a"])["views_7d"][0] == 1


def said(*rows: tuple[str, int, int, int | None]) -> pa.Table:
    """A catalogue of (item, said at, known at, category)."""
    items, at, created, categories = zip(*rows, strict=True)
    return pa.table(
        {
            "item_id": list(items),
            EVENT_TIMESTAMP: pa.array(at, pa.timestamp("ms", "UTC")),
            CREATED_TIMESTAMP: pa.array(created, pa.timestamp("ms", "UTC")),
            "category_id": pa.array(categories, pa.int64()),
            "brand_id": pa.array([0] * len(rows), pa.int64()),
            "available": pa.array([1] * len(rows), pa.int64()),
            "price": pa.array([1.0] * len(rows), pa.float32()),
        }
    )  # fmt: skip


def test_of_the_catalogue_counts_the_newest_row_that_was_known() -> None:
    catalogue = said(
        ("late", MOMENT - 5, MOMENT - 5, 1), ("late", MOMENT - 3, MOMENT, 2),  # known too late
        ("mended", MOMENT - 5, MOMENT - 2, 4), ("mended", MOMENT - 5, MOMENT - 4, 3),
        ("order", MOMENT - 2, MOMENT - 2, 6), ("order", MOMENT - 9, MOMENT - 1, 5),
        ("now", MOMENT, MOMENT, 7), ("nothing", MOMENT - 5, MOMENT - 5, None),
    )  # fmt: skip
    items = FrozenItems.of(table([("a", MOMENT - 2 * DAY, 2)]), catalogue, MOMENT)
    names = ["late", "mended", "order", "now", "nothing", "a"]
    assert items.take(names)["category_id"].tolist() == [1, 4, 6, 0, 0, 0]
    assert [items.knows(name) for name in [*names, "never"]] == [True, True, True, False, True, True, False]  # fmt: skip
    only_said = items.take(["late"])
    assert np.isnan(only_said["views_7d"][0])
    assert only_said["price"][0] == 1


def test_an_item_that_is_not_known_is_missing_wherever_it_stands() -> None:
    items = FrozenItems.of(table([("a", MOMENT - 2 * DAY, 2), ("b", MOMENT - 2 * DAY, 3)]), None, MOMENT)  # fmt: skip
    found = items.take(["b", "never", "a"])
    assert found["views_7d"][[0, 2]].tolist() == [1, 1]
    for feature in of_view("item_activity"):
        assert np.isnan(found[feature.name][1])
    assert (found["category_id"][1], found["brand_id"][1], found["available"][1]) == (0, 0, 1)
    assert np.isnan(found["price"][1])


def test_events_without_an_item_are_nobodys() -> None:
    plain = table([("a", MOMENT - 2 * DAY, 2)])
    events = pa.table(
        {
            name: [*plain[name].to_pylist(), None if name == "item_id" else plain[name][0].as_py()]
            for name in plain.column_names
        }
    )
    assert FrozenItems.of(events, None, MOMENT).take(["a"])["views_7d"].tolist() == [1]
