"""Cases small enough to work out by hand, each about one thing that a join gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from feast_engine.join_rule import MOMENT, JoinRule
from tests.feast_engine.oracle import NOON, ROW, Case

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
RULE = JoinRule({"item_id": "item_id"}, ("price",))
_BIG = 2**53 + 1
"""The first whole number that double precision cannot hold."""


def _times(
    values: Sequence[datetime | None], zone: str | None = "UTC", unit: str = "us"
) -> pa.Array:
    utc = pa.array(values, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC"))
    return utc.cast(pa.timestamp(unit, zone))


def _asked(*rows: tuple[str | None, datetime | None], zone: str | None = "UTC") -> pa.Table:
    """Items and moments."""
    items, moments = zip(*rows, strict=True)
    places = pa.array(range(len(rows)), pa.int64())
    return pa.table(
        {"item_id": pa.array(items, pa.string()), MOMENT: _times(moments, zone), ROW: places}
    )


def _history(
    *rows: tuple[str | None, datetime | None, datetime | None, float | None],
    zone: str | None = "UTC",
    unit: str = "us",
) -> tuple[pa.Table, ...]:
    """Item, event time, created time, price."""
    items, events, created, prices = zip(*rows, strict=True)
    return (
        pa.table(
            {
                "item_id": pa.array(items, pa.string()),
                "event_timestamp": _times(events, zone, unit),
                "created_timestamp": _times(created, zone, unit),
                "price": pa.array(prices, pa.float32()),
            }
        ),
    )


def _case(
    name: str,
    asked: str,
    entity: pa.Table,
    history: tuple[pa.Table, ...],
    prices: Sequence[Any],
    rule: JoinRule = RULE,
    flag: bool = True,
) -> Case:
    [feature] = rule.features
    return Case(entity, history, rule, name, asked, [{feature: value} for value in prices], flag)


def _rule(**more: Any) -> JoinRule:
    return JoinRule(**{"keys": RULE.keys, "features": RULE.features, **more})


def _same(value: float, *times: datetime) -> tuple[Any, ...]:
    """Rows of the item a that were created when they happened."""
    return tuple(("a", time, time, value + place) for place, time in enumerate(times))


ROWS_KEPT = [
    _case(
        "no earlier value",
        "an item without history, and one before its first row",
        _asked(("b", NOON), ("a", NOON - HOUR), ("a", NOON)),
        _history(*_same(1.0, NOON)),
        [None, None, 1.0],
    ),
    _case(
        "asked twice",
        "the same item and moment in two rows",
        _asked(("a", NOON), ("a", NOON)),
        _history(*_same(1.0, NOON - HOUR)),
        [1.0, 1.0],
    ),
    _case(
        "order of rows",
        "later moments before earlier ones",
        _asked(("a", NOON), ("a", NOON - 2 * HOUR), ("a", NOON - HOUR)),
        _history(*_same(1.0, NOON - 2 * HOUR, NOON - HOUR, NOON)),
        [3.0, 1.0, 2.0],
    ),
    _case(
        "null key",
        "a row without an item, beside a history row without one",
        _asked((None, NOON), ("a", NOON)),
        _history((None, NOON, NOON, 9.0), *_same(1.0, NOON)),
        [None, 1.0],
    ),
    _case(
        "null moment",
        "a row without a moment",
        _asked(("a", None), ("a", NOON)),
        _history(*_same(1.0, NOON)),
        [None, 1.0],
    ),
    _case(
        "empty text as a key",
        "an item whose id is the empty text",
        _asked(("", NOON), ("a", NOON)),
        _history(("", NOON, NOON, 5.0), *_same(1.0, NOON)),
        [5.0, 1.0],
    ),
]

TIMES = [
    _case(
        "at the moment itself",
        "a row of exactly the moment, and one a microsecond later",
        _asked(("a", NOON)),
        _history(*_same(1.0, NOON, NOON + MICROSECOND)),
        [1.0],
    ),
    _case(
        "moments of another zone",
        "the moment in Berlin's time, the history in Kolkata's",
        _asked(("a", NOON), ("a", NOON - HOUR), zone="Europe/Berlin"),
        _history(*_same(1.0, NOON - HOUR, NOON), zone="Asia/Kolkata"),
        [2.0, 1.0],
    ),
    _case(
        "times without a zone",
        "moments and history without a zone, which is UTC",
        _asked(("a", NOON), ("a", NOON - MICROSECOND), zone=None),
        _history(*_same(1.0, NOON - HOUR, NOON), zone=None),
        [2.0, 1.0],
    ),
    _case(
        "maximum age",
        "a value exactly as old as the maximum age, and one a microsecond older",
        _asked(("a", NOON), ("a", NOON + MICROSECOND)),
        _history(*_same(1.0, NOON - HOUR)),
        [1.0, None],
        _rule(max_age=HOUR),
    ),
    _case(
        "null event time",
        "a history row without an event time",
        _asked(("a", NOON)),
        _history(("a", None, NOON, 9.0), *_same(1.0, NOON - HOUR)),
        [1.0],
    ),
]

KNOWN = [
    _case(
        "late row, nothing said",
        "a row created after the moment, Feast's default arguments",
        _asked(("a", NOON), ("a", NOON + HOUR)),
        _history(*_same(1.0, NOON - 2 * HOUR), ("a", NOON - HOUR, NOON + HOUR, 9.0)),
        [1.0, 9.0],
        flag=False,
    ),
    _case(
        "late row",
        "the same with filter_by_created_timestamp=True",
        _asked(("a", NOON), ("a", NOON + HOUR)),
        _history(*_same(1.0, NOON - 2 * HOUR), ("a", NOON - HOUR, NOON + HOUR, 9.0)),
        [1.0, 9.0],
    ),
    _case(
        "late row, view not as known",
        "the same of a view with the tag as_known: false",
        _asked(("a", NOON)),
        _history(*_same(1.0, NOON - 2 * HOUR), ("a", NOON - HOUR, NOON + HOUR, 9.0)),
        [9.0],
        _rule(as_known=False),
    ),
    _case(
        "known late, but older",
        "of two rows the older one became known last",
        _asked(("a", NOON)),
        _history(*_same(1.0, NOON - HOUR), ("a", NOON - 2 * HOUR, NOON, 9.0)),
        [1.0],
    ),
    _case(
        "corrected twice",
        "three rows of one event time, created one after the other",
        _asked(("a", NOON), ("a", NOON + HOUR), ("a", NOON + 2 * HOUR)),
        _history(*(("a", NOON, NOON + hour * HOUR, 1.0 + hour) for hour in (2, 0, 1))),
        [1.0, 2.0, 3.0],
    ),
    _case(
        "null created time",
        "a newer row without a created time",
        _asked(("a", NOON)),
        _history(*_same(1.0, NOON - HOUR), ("a", NOON, None, 9.0)),
        [1.0],
    ),
    _case(
        "no created column",
        "a source that does not say when rows were created",
        _asked(("a", NOON)),
        tuple(
            table.drop_columns(["created_timestamp"])
            for table in _history(*_same(1.0, NOON - HOUR, NOON))
        ),
        [2.0],
        _rule(created=None),
    ),
]

TIES = [
    _case(
        "same times, other values",
        "two rows that agree in both times: the greater value, whatever the order of the files",
        _asked(("a", NOON)),
        _history(("a", NOON, NOON, 1.0), ("a", NOON, NOON, 2.0), ("a", NOON, NOON, None)),
        [2.0],
    ),
    _case(
        "same event time, one not created",
        "the row without a created time comes first",
        _asked(("a", NOON)),
        _history(("a", NOON, NOON - HOUR, 1.0), ("a", NOON, None, 9.0)),
        [1.0],
        _rule(as_known=False),
    ),
]


def _pairs() -> Case:
    keys = {"item_id": pa.array(["1", "11", "1", None]), "shop": pa.array(["11", "1", None, "11"])}
    entity = {MOMENT: _times([NOON] * 4), ROW: pa.array(range(4), pa.int64())}
    history = {
        "item_id": pa.array(["11", "1", "1"]),
        "shop": pa.array(["1", "11", "1"]),
        "event_timestamp": _times([NOON - HOUR] * 3),
        "created_timestamp": _times([NOON - HOUR] * 3),
        "price": pa.array([1.0, 2.0, 3.0], pa.float32()),
    }
    return _case(
        "two keys",
        "pairs that read alike when strung together, and pairs with a null",
        pa.table({**keys, **entity}),
        (pa.table(history),),
        [2.0, 1.0, None, None],
        _rule(keys={"item_id": "item_id", "shop": "shop"}),
    )


def _numbers() -> Case:
    return _case(
        "whole numbers beyond double precision",
        "a whole number that double precision cannot hold, beside a row without a value",
        _asked(("a", NOON), ("b", NOON)),
        tuple(
            table.drop_columns(["price"]).append_column("stock", pa.array([_BIG]))
            for table in _history(*_same(1.0, NOON))
        ),
        [_BIG, None],
        _rule(features=("stock",)),
    )


def _ending() -> Case:
    return _case(
        "a name that ends in _y",
        "a feature whose name is one that joins like to make",
        _asked(("a", NOON)),
        tuple(table.rename_columns({"price": "price_y"}) for table in _history(*_same(1.0, NOON))),
        [1.0],
        _rule(features=("price_y",)),
    )


def _files() -> Case:
    older = _history(*_same(1.0, NOON - 2 * HOUR))[0]
    return _case(
        "files of different columns",
        "a feature that the older file does not have yet",
        _asked(("a", NOON - 2 * HOUR), ("a", NOON)),
        (*_history(*_same(2.0, NOON - HOUR)), older.drop_columns(["price"])),
        [None, 2.0],
    )


CASES: list[Case] = [*ROWS_KEPT, *TIMES, *KNOWN, *TIES, _pairs(), _numbers(), _ending(), _files()]
