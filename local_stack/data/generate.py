"""A made-up shop with a planted, documented structure: tests can ask it for a known answer.

What is planted, all of it from `seed`:

- **Items** belong to categories (about 40 items each) and to brands (6 a category); a category has
  a price level, items scatter around it.
- **What follows what**: every item has one *successor* (`Shop.successor`), itself another item's
  successor, in one circle through all items. After visiting an item, the next visited item is its
  successor with probability `FOLLOW` (0.5); otherwise it is a popular item of the same category
  (0.25), an item popular in the shop at that time (0.15) or one of the session seen before (0.10).
  Sessions begin with an item that is popular at that time.
- **What is popular when**: item weights fall like 1/(rank + 5)^0.8; in its own week (`Shop.week`,
  weeks counted from the beginning) an item weighs `TREND` (6) times as much.
- **Prices**: every fifth item gets a tenth to a third cheaper at one moment (`Shop.price`).
- **Visitors**: 3 to `LONGEST` items a session, 6 on average; most come in the evening; 10 % pause
  for over 30 minutes once; 12 % of item views become add_to_cart, a third of these checkout.
  Device and traffic source are constant in a session; the position in the listing is known.

The file's columns are our own field names (`contracts.events.Event`), with the item's category and
brand beside them: `nextclick data import FILE` and `make demo EVENTS=FILE` take it as it is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.errors import UsageError
from contracts.events import Device, TrafficSource

FOLLOW, SAME_CATEGORY, POPULAR = 0.5, 0.25, 0.15
"""Probabilities of the next item; the rest goes back to an item seen before."""
TREND = 6.0
LONGEST = 30
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
PAUSE_MS = 45 * 60_000
"""Shortest pause that ends a visit; longer than 30 minutes."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shop:
    """The planted structure. Items are named `item-00000` ...; arrays are by item number."""

    seed: int
    begin: int  # milliseconds
    end: int  # milliseconds; no event is later
    category: Ints
    brand: Ints
    base_price: Floats
    price_change: Ints  # moment, milliseconds; beyond `end` where there is none
    discount: Floats
    follower: Ints
    weight: Floats
    week: Ints

    @classmethod
    def of(cls, seed: int, items: int, days: int, end_ms: int) -> Shop:
        random = np.random.default_rng([seed, 1])
        begin = end_ms - days * DAY_MS
        categories = max(2, items // 40)
        category = random.integers(0, categories, items)
        circle = random.permutation(items)
        follower = np.empty(items, dtype=np.int64)
        follower[circle] = np.roll(circle, -1)
        level = random.lognormal(4.0, 0.8, categories)
        changes = random.random(items) < 0.2
        moment = random.integers(begin, end_ms, items)
        return cls(
            seed=seed,
            begin=begin,
            end=end_ms,
            category=category,
            brand=category * 6 + random.integers(0, 6, items),
            base_price=np.round(level[category] * random.lognormal(0, 0.3, items), 2),
            price_change=np.where(changes, moment, end_ms + 1),
            discount=random.uniform(0.1, 0.33, items),
            follower=follower,
            weight=np.power(random.permutation(items) + 5.0, -0.8, dtype=np.float64),
            week=random.integers(0, -(-days // 7), items),
        )

    @property
    def items(self) -> list[str]:
        return [_name(number) for number in range(len(self.follower))]

    def successor(self, item: str) -> str:
        """The item that is visited next with probability `FOLLOW` at least."""
        return _name(int(self.follower[_number(item)]))

    def popular_items(self, moment: int | None = None, count: int = 10) -> list[str]:
        """The items that most sessions begin with at `moment` (milliseconds; None: at the end)."""
        weights = self.weights(self.week_of(self.end if moment is None else moment))
        return [_name(int(number)) for number in np.argsort(-weights, kind="stable")[:count]]

    def price(self, item: str, moment: int) -> float:
        number = _number(item)
        return float(self.prices(np.array([number]), np.array([moment]))[0])

    def category_of(self, item: str) -> str:
        return _category(int(self.category[_number(item)]))

    def brand_of(self, item: str) -> str:
        return f"brand-{self.brand[_number(item)]}"

    # --- for whole arrays ----------------------------------------------------------------------

    def weeks(self) -> int:
        return -(-(self.end - self.begin) // WEEK_MS)

    def week_of(self, moment: int) -> int:
        return min(self.weeks() - 1, max(0, (moment - self.begin) // WEEK_MS))

    def weights(self, week: int) -> Floats:
        """How much each item draws in a week."""
        return np.where(self.week == week, TREND * self.weight, self.weight)

    def prices(self, items: Ints, moments: Ints) -> Floats:
        changed = moments >= self.price_change[items]
        factor = np.where(changed, 1 - self.discount[items], 1.0)
        return np.round(self.base_price[items] * factor, 2)


def _name(number: int) -> str:
    return f"item-{number:05d}"


def _number(item: str) -> int:
    return int(item.removeprefix("item-"))


def _category(number: int) -> str:
    return f"department-{number // 8}.category-{number}"


def generate_shop(
    seed: int = 0,
    sessions: int = 20_000,
    items: int = 2_000,
    days: int = 42,
    end_ms: int | None = None,
) -> tuple[Shop, pa.Table]:
    """The shop and its events, in order of time, the last ones shortly before `end_ms` (now)."""
    end = int(time.time() * 1000) if end_ms is None else end_ms
    shop = Shop.of(seed, items, days, end)
    random = np.random.default_rng([seed, 2])
    visits = _Visits(shop, random, sessions)
    return shop, visits.table()


def write_shop(
    file: Path,
    seed: int = 0,
    sessions: int = 20_000,
    items: int = 2_000,
    days: int = 42,
    end_ms: int | None = None,
) -> int:
    """Write the events of `generate_shop` to a Parquet file; returns how many."""
    if file.suffix != ".parquet":
        raise UsageError(
            f"{file}: the shop is written as Parquet, so the name must end in .parquet"
        )
    _, table = generate_shop(seed, sessions, items, days, end_ms)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, compression="zstd")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error}") from None
    rows: int = table.num_rows
    return rows


class _Visits:
    """All sessions at once, one step of every session at a time."""

    def __init__(self, shop: Shop, random: np.random.Generator, sessions: int) -> None:
        self.shop, self.random, self.sessions = shop, random, sessions
        self.start = _starts(shop, random, sessions)
        self.length = np.minimum(LONGEST, 2 + random.geometric(1 / 4, sessions))
        self._weeks = np.minimum(shop.weeks() - 1, (self.start - shop.begin) // WEEK_MS)
        self._by_category = np.argsort(shop.category, kind="stable")
        self._drawers = [_Drawer(shop, self._by_category, week) for week in range(shop.weeks())]

    def table(self) -> pa.Table:
        items, times = self._paths()
        order = np.argsort(self.random.random(self.sessions))  # names do not tell the time
        device = self.random.choice([1, 2, 2, 3, 4], self.sessions)
        source = self.random.integers(1, len(TrafficSource), self.sessions)
        session, step = np.nonzero(np.arange(LONGEST)[None, :] < self.length[:, None])
        views = _Rows(session, items[session, step], times[session, step], "item_view")
        rows = [views, *self._carts(views), *self._arrivals()]
        return self._columns(rows, order, device, source)

    def _paths(self) -> tuple[Ints, Ints]:
        """Item and time [sessions, LONGEST]; steps after a session's length are filled, unused."""
        items = np.empty((self.sessions, LONGEST), dtype=np.int64)
        items[:, 0] = self._draw(self._popular)
        for step in range(1, LONGEST):
            items[:, step] = self._next(items, step)
        gaps = np.clip(self.random.lognormal(10.6, 0.9, items.shape), 3_000, 20 * 60_000)
        pauses = (self.random.random(self.sessions) < 0.1) * self.random.integers(
            PAUSE_MS, 4 * PAUSE_MS, self.sessions
        )
        gaps[np.arange(self.sessions), self.random.integers(1, 4, self.sessions)] += pauses
        gaps[:, 0] = 0
        times = self.start[:, None] + np.cumsum(gaps, axis=1).astype(np.int64)
        last = times[np.arange(self.sessions), self.length - 1]
        late = np.maximum(0, last + 5 * 60_000 - self.shop.end)  # room for cart and checkout
        return items, times - late[:, None]

    def _next(self, items: Ints, step: int) -> Ints:
        last = items[:, step - 1]
        kind = self.random.random(self.sessions)
        before = items[np.arange(self.sessions), self.random.integers(0, step, self.sessions)]
        limits = np.cumsum([FOLLOW, SAME_CATEGORY, POPULAR])
        return np.select(
            [kind < limit for limit in limits],
            [self.shop.follower[last], self._draw(self._similar, last), self._draw(self._popular)],
            before,
        )

    def _draw(self, how: Any, *last: Ints) -> Ints:
        """Draw for the sessions of each week from that week's weights."""
        drawn = np.empty(self.sessions, dtype=np.int64)
        uniform = self.random.random(self.sessions)
        for week, drawer in enumerate(self._drawers):
            mine = self._weeks == week
            drawn[mine] = how(drawer, uniform[mine], *(values[mine] for values in last))
        return drawn

    @staticmethod
    def _popular(drawer: _Drawer, uniform: Floats) -> Ints:
        return drawer.any(uniform)

    @staticmethod
    def _similar(drawer: _Drawer, uniform: Floats, last: Ints) -> Ints:
        return drawer.of_category(uniform, last)

    def _carts(self, views: _Rows) -> list[_Rows]:
        carted = np.nonzero(self.random.random(len(views.item)) < 0.12)[0]
        bought = carted[self.random.random(len(carted)) < 1 / 3]
        return [
            _Rows(views.session[carted], views.item[carted], views.time[carted] + 2_000, "add_to_cart"),
            _Rows(views.session[bought], views.item[bought], views.time[bought] + 2_900, "checkout"),
        ]  # fmt: skip

    def _arrivals(self) -> list[_Rows]:
        """Page views and searches before the first item: they name no item."""
        kind = self.random.random(self.sessions)
        before = self.start - 2_000
        chosen = {"page_view": kind < 0.3, "search": kind > 0.9}
        return [
            _Rows(np.nonzero(mask)[0], np.full(mask.sum(), -1), before[mask], name)
            for name, mask in chosen.items()
        ]

    def _columns(self, parts: list[_Rows], order: Ints, device: Ints, source: Ints) -> pa.Table:
        session, item, moment = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("session", "item", "time")
        )
        kind = np.concatenate([np.full(len(part.item), part.type) for part in parts])
        known = item >= 0
        safe = np.where(known, item, 0)
        position = self.random.integers(0, 20, len(item))
        prices = self.shop.prices(safe, moment)
        columns = {
            "session_id": _texts("visitor-{:07d}", self.sessions, order[session]),
            "item_id": _texts("item-{:05d}", len(self.shop.follower), safe, known),
            "time": pa.array(moment),
            "type": pa.array(kind),
            "position": pa.array(position, mask=kind != "item_view"),
            "device": pa.array([d.name for d in Device]).take(pa.array(device[session])),
            "source": pa.array([s.name for s in TrafficSource]).take(pa.array(source[session])),
            "price": pa.array(prices, mask=~known),
            "quantity": pa.array(np.ones(len(item), dtype=np.int64), mask=~_in_cart(kind)),
            "query": self._words(session, kind),
            "category": self._category_names(safe, known),
            "brand": _texts("brand-{}", int(self.shop.brand.max()) + 1, self.shop.brand[safe], known),
        }  # fmt: skip
        return pa.table(columns).take(pa.array(np.lexsort((session, moment))))

    def _category_names(self, items: Ints, known: npt.NDArray[np.bool_]) -> pa.Array:
        names = pa.array([_category(n) for n in range(int(self.shop.category.max()) + 1)])
        return names.take(pa.array(self.shop.category[items], mask=~known))

    def _words(self, session: Ints, kind: npt.NDArray[np.str_]) -> pa.Array:
        words = pa.array([f"category {n}" for n in range(int(self.shop.category.max()) + 1)])
        asked = self.shop.category[session % len(self.shop.category)]
        return words.take(pa.array(asked, mask=kind != "search"))


@dataclass(frozen=True)
class _Rows:
    session: Ints
    item: Ints  # -1: none
    time: Ints
    type: str


class _Drawer:
    """Items by weight in one week: of all, or of one category."""

    def __init__(self, shop: Shop, by_category: Ints, week: int) -> None:
        self._items, self._category = by_category, shop.category
        self._sum = np.cumsum(shop.weights(week)[by_category])
        ordered = shop.category[by_category]
        numbers = np.arange(int(shop.category.max()) + 1)
        first = np.searchsorted(ordered, numbers, side="left")
        last = np.searchsorted(ordered, numbers, side="right")
        padded = np.concatenate([[0.0], self._sum])
        self._low, self._high = padded[first], padded[last]

    def any(self, uniform: Floats) -> Ints:
        return self._at(uniform * self._sum[-1])

    def of_category(self, uniform: Floats, items: Ints) -> Ints:
        category = self._category[items]
        low, high = self._low[category], self._high[category]
        return self._at(low + uniform * (high - low))

    def _at(self, place: Floats) -> Ints:
        index = np.searchsorted(self._sum, place, side="right")
        drawn: Ints = self._items[np.minimum(index, len(self._items) - 1)]
        return drawn


def _starts(shop: Shop, random: np.random.Generator, sessions: int) -> Ints:
    """When sessions begin: any day, most in the evening (UTC)."""
    hours = np.exp(-(((np.arange(24) - 20 + 12) % 24 - 12) ** 2) / 50.0)
    earliest, latest = shop.begin + 2_000, shop.end - HOUR_MS
    day = random.integers(earliest // DAY_MS, latest // DAY_MS + 1, sessions)
    hour = random.choice(24, sessions, p=hours / hours.sum())
    start = day * DAY_MS + hour * HOUR_MS + random.integers(0, HOUR_MS, sessions)
    outside = (start < earliest) | (start > latest)  # of the first and the last day
    return np.where(outside, random.integers(earliest, latest, sessions), start)


def _texts(
    form: str, count: int, numbers: Ints, known: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    names = pa.array([form.format(number) for number in range(count)])
    return names.take(pa.array(numbers, mask=None if known is None else ~known))


def _in_cart(kind: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    return np.isin(kind, ["add_to_cart", "checkout"])
