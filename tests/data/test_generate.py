"""The generated shop keeps what its description promises."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from contracts.events import parse_event
from local_stack.data.generate import DAY_MS, TREND, WEEK_MS, Shop, generate_shop, write_shop

END = 1_700_049_600_000
SIZE = {"sessions": 4_000, "items": 200, "days": 28, "end_ms": END}


@pytest.fixture(scope="module")
def made() -> tuple[Shop, list[dict[str, Any]]]:
    shop, table = generate_shop(seed=3, **SIZE)
    return shop, table.to_pylist()


Made = tuple[Shop, list[dict[str, Any]]]


def paths(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Items viewed by session, in order of time."""
    by_session: dict[object, list[str]] = defaultdict(list)
    for row in rows:
        if row["type"] == "item_view":
            by_session[row["session_id"]].append(str(row["item_id"]))
    return list(by_session.values())


def test_the_successor_follows_half_of_the_time_and_nothing_else_comes_near(made: Made) -> None:
    shop, rows = made
    pairs = Counter((a, b) for path in paths(rows) for a, b in itertools.pairwise(path))
    followed = sum(n for (a, b), n in pairs.items() if shop.successor(a) == b)
    assert 0.48 < followed / pairs.total() < 0.56
    for item in shop.popular_items(count=5):
        following = Counter({b: n for (a, b), n in pairs.items() if a == item})
        assert following.most_common(1)[0][0] == shop.successor(item)


def test_successors_make_one_circle_through_all_items(made: Made) -> None:
    shop, _ = made
    item, seen = shop.items[0], set()
    while item not in seen:
        seen.add(item)
        item = shop.successor(item)
    assert seen == set(shop.items)


def test_sessions_begin_with_what_is_popular_in_that_week(made: Made) -> None:
    shop, rows = made
    for week in range(shop.weeks()):
        begin = shop.begin + week * WEEK_MS
        firsts: dict[object, dict[str, Any]] = {}
        for row in rows:
            if row["type"] == "item_view":
                firsts.setdefault(row["session_id"], row)
        mine = Counter(r["item_id"] for r in firsts.values() if 0 <= r["time"] - begin < WEEK_MS)
        weights = shop.weights(week)
        top = shop.popular_items(begin, 20)
        expected = sum(sorted(weights)[-20:]) / sum(weights)
        share = sum(mine[item] for item in top) / mine.total()
        assert abs(share - expected) < 0.06


def test_an_item_is_six_times_as_popular_in_its_week(made: Made) -> None:
    shop, _ = made
    week = int(shop.week[0])
    other = (week + 1) % shop.weeks()
    assert shop.weights(week)[0] == pytest.approx(TREND * shop.weights(other)[0])


def test_every_row_is_an_event_at_the_planted_price(made: Made) -> None:
    shop, rows = made
    for row in rows[:3000]:
        fields = {k: v for k, v in row.items() if v is not None and k not in {"category", "brand"}}
        event = parse_event(fields, END)
        assert shop.begin <= event.time <= END
        if event.item_id is not None:
            assert event.price == shop.price(event.item_id, event.time)
            assert row["category"] == shop.category_of(event.item_id)
            assert row["brand"] == shop.brand_of(event.item_id)


def test_all_that_visitors_do_is_there(made: Made) -> None:
    _, rows = made
    kinds = Counter(row["type"] for row in rows)
    assert 0.10 < kinds["add_to_cart"] / kinds["item_view"] < 0.14
    assert 0.28 < kinds["checkout"] / kinds["add_to_cart"] < 0.39
    assert kinds["search"] > 100
    assert kinds["page_view"] > 500
    assert len({row["device"] for row in rows}) == 4
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert END - times[-1] < DAY_MS


def test_the_same_seed_makes_the_same_shop_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        rows = write_shop(tmp_path / f"{name}.parquet", seed=seed, **SIZE)
        assert rows == pq.ParquetFile(tmp_path / f"{name}.parquet").metadata.num_rows
    same, again, other = ((tmp_path / f"{name}.parquet").read_bytes() for name in "abc")
    assert same == again
    assert same != other
    shop, _ = generate_shop(seed=1, **SIZE)
    assert shop.items[0] != shop.successor(shop.items[0])


@pytest.mark.parametrize(("sessions", "items", "days"), [(1, 10, 1), (5, 10, 1), (3, 11, 400)])
def test_small_shops_work_too(sessions: int, items: int, days: int) -> None:
    shop, table = generate_shop(0, sessions, items, days, END)
    assert table.num_rows >= 3 * sessions
    assert len(shop.items) == items
