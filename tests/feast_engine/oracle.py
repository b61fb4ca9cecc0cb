"""The point-in-time join as a plain loop, random tables for it, and what an implementation is.

An implementation is called with a case and an empty folder, where it may write the tables as files,
and gives back the rows it answers with, at least `ROW` and the features of the rule. The suite runs
on any: `check(implementation, case, folder)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from feast_engine.join_rule import MOMENT, JoinRule

ROW = "row"
"""A column of every asking table: the row's place, from 0."""
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
"""Moments of the cases lie around it: half a day after a change of clocks in Berlin."""
MICROSECOND = timedelta(microseconds=1)
_DAY_ONE = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """`history`: the files of the table. `name`, `asked`: for a person. `expected`: the features
    of each asking row, worked out by hand where there is a list, else by `answers`. `flag` False:
    Feast's own stores are asked as by default, without their switch that hides unknown rows."""

    entity: pa.Table
    history: tuple[pa.Table, ...]
    rule: JoinRule
    name: str = ""
    asked: str = ""
    expected: list[dict[str, Any]] = field(default_factory=list)
    flag: bool = True

    @property
    def schema(self) -> pa.Schema:
        """The history's columns, of all files."""
        return pa.unify_schemas([table.schema for table in self.history])

    def write(self, folder: Path) -> Path:
        """The history as Parquet files, of small row groups."""
        folder.mkdir(parents=True)
        for place, table in enumerate(self.history):
            pq.write_table(table, folder / f"part-{place}.parquet", row_group_size=3)
        return folder


Implementation = Callable[[Case, Path], pa.Table]


def answers(case: Case) -> list[dict[str, Any]]:
    """What is right: for each asking row the features of the row that answers it, or nulls."""
    empty = dict.fromkeys(case.rule.features)  # a file may lack a column
    history = [{**empty, **row} for table in case.history for row in table.to_pylist()]
    return [_answer(row, history, case.rule) for row in case.entity.to_pylist()]


def _answer(
    asking: dict[str, Any], history: list[dict[str, Any]], rule: JoinRule
) -> dict[str, Any]:
    nothing = dict.fromkeys(rule.features)
    moment = instant(asking[MOMENT])
    best: dict[str, Any] | None = None
    for row in history:
        if _counts(row, asking, moment, rule) and (
            best is None or _rank(row, rule) > _rank(best, rule)
        ):
            best = row
    if best is None or moment is None:
        return nothing
    if (
        rule.max_age is not None
        and moment - instant(best[rule.event]) > rule.max_age // MICROSECOND
    ):
        return nothing
    return {name: best[name] for name in rule.features}


def _counts(
    row: dict[str, Any], asking: dict[str, Any], moment: int | None, rule: JoinRule
) -> bool:
    event = instant(row[rule.event])
    if moment is None or event is None or event > moment:
        return False
    if any(asking[key] is None or asking[key] != row[own] for key, own in rule.keys.items()):
        return False
    if rule.created is None or not rule.as_known:
        return True
    created = instant(row[rule.created])
    return created is not None and created <= moment


def _rank(row: dict[str, Any], rule: JoinRule) -> tuple[Any, ...]:
    created = None if rule.created is None else instant(row[rule.created])
    return (
        instant(row[rule.event]),
        (created is not None, created or 0),
        *(_order(row[name]) for name in rule.features),
    )


def _order(value: Any) -> tuple[Any, ...]:
    """Null first, nan last, lists element by element."""
    if value is None:
        return (0,)
    if isinstance(value, float) and math.isnan(value):
        return (2,)
    return (1, [_order(part) for part in value] if isinstance(value, list) else value)


def instant(time: Any) -> Any:
    """Microseconds since 1970 of a datetime (naive: UTC) or pandas timestamp; None for null."""
    if time is None:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _DAY_ONE) // MICROSECOND


def check(implementation: Implementation, case: Case, folder: Path) -> None:
    """AssertionError unless every asking row came back once, in its place, with the right values."""
    table = implementation(case, folder)
    assert table[ROW].to_pylist() == list(range(case.entity.num_rows)), (
        "rows lost, doubled or moved"
    )
    expected = case.expected or answers(case)
    for name in case.rule.features:
        got = [plain(value) for value in table[name].to_pylist()]
        assert got == [plain(row[name]) for row in expected], name


def plain(value: Any) -> Any:
    """A value that equals itself: nan as text."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value


# --- random tables -----------------------------------------------------------------------------

ZONES = (None, "UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")
KEYS: dict[str, tuple[pa.DataType, Sequence[Any]]] = {
    "item_id": (pa.string(), ("a", "ü☃", "", "-1", None)),
    "shop": (pa.int64(), (-1, 0, 2**53 + 1, None)),
}
FEATURES: dict[str, tuple[pa.DataType, Sequence[Any]]] = {
    "price": (pa.float32(), (0.5, -1.0, math.nan, None)),
    "stock": (pa.int64(), (2**53 + 1, 2**53, -3, None)),
    "brand": (pa.string(), ("ä", "z", "Z", "", None)),
    "seen": (pa.list_(pa.int64()), ([1, 2], [1], [], [3], None)),
}
SPAN = 6
"""Times lie within so many steps of `NOON`, so that they meet often."""


@dataclass(frozen=True)
class Times:
    """How a column writes its times."""

    zone: str | None
    unit: str
    step: timedelta

    def array(self, steps: Sequence[int | None]) -> pa.Array:
        values = [None if n is None else NOON + n * self.step for n in steps]
        utc = pa.array(values, pa.timestamp("us", "UTC"))
        zoned = utc.cast(pa.timestamp(self.unit, "UTC"))
        return zoned.cast(pa.timestamp(self.unit, self.zone))


@st.composite
def times(draw: st.DrawFn, step: timedelta) -> Times:
    fine = ["us", "ns"] if step == MICROSECOND else ["us", "ns", "ms", "s"]
    return Times(draw(st.sampled_from(ZONES)), draw(st.sampled_from(fine)), step)


STEPS = st.integers(-SPAN, SPAN)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Tables with missing and null keys, ties, nulls, late rows, equal times, several keys, time
    zones and maximum ages."""
    step = draw(STEP)
    keys = draw(st.permutations(list(KEYS)))[: draw(st.integers(0, len(KEYS)))]
    rule = draw(rules(keys, step))
    return Case(draw(asking(keys, step)), draw(histories(rule, step)), rule)


@st.composite
def views(draw: st.DrawFn) -> list[Case]:
    """The same rows asked of two or three tables, whose keys are some of theirs."""
    step = draw(STEP)
    entity = draw(asking(list(KEYS), step))
    found = []
    for _ in range(draw(st.integers(2, 3))):
        keys = draw(st.sets(st.sampled_from(list(KEYS))))
        rule = draw(rules(sorted(keys), step))
        found.append(Case(entity, draw(histories(rule, step)), rule))
    return found


STEP = st.sampled_from([MICROSECOND, timedelta(seconds=1), timedelta(days=1)])


@st.composite
def rules(draw: st.DrawFn, keys: Sequence[str], step: timedelta) -> JoinRule:
    features = draw(st.permutations(list(FEATURES)))[: draw(st.integers(1, 3))]
    age = draw(st.none() | st.integers(1, SPAN))
    return JoinRule(
        {key: key for key in keys},
        tuple(features),
        created=draw(st.sampled_from(["created_timestamp", None])),
        max_age=None if age is None else age * step,
        as_known=draw(st.booleans()),
    )


@st.composite
def asking(draw: st.DrawFn, keys: Sequence[str], step: timedelta) -> pa.Table:
    rows = draw(st.integers(0, 6))
    written = draw(times(step))
    columns = {key: draw(column(KEYS[key], rows)) for key in keys}
    columns[MOMENT] = written.array(draw(st.lists(st.none() | STEPS, min_size=rows, max_size=rows)))
    return pa.table({**columns, ROW: pa.array(range(rows), pa.int64())})


@st.composite
def column(draw: st.DrawFn, kind: tuple[pa.DataType, Sequence[Any]], rows: int) -> pa.Array:
    values = draw(st.lists(st.sampled_from(kind[1]), min_size=rows, max_size=rows))
    return pa.array(values, kind[0])


@st.composite
def histories(draw: st.DrawFn, rule: JoinRule, step: timedelta) -> tuple[pa.Table, ...]:
    """One to three files of one schema; a row is created up to `SPAN` steps around its event."""
    count = draw(st.integers(0, 14))
    event, created = draw(times(step)), draw(times(step))
    held = st.lists(st.none() | STEPS, min_size=count, max_size=count)
    columns = {key: draw(column(KEYS[key], count)) for key in rule.keys.values()}
    columns[rule.event] = event.array(draw(held))
    if rule.created is not None:
        columns[rule.created] = created.array(draw(held))
    for name in rule.features:
        columns[name] = draw(column(FEATURES[name], count))
    whole = pa.table(columns)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=2)))
    edges = [0, *cuts, count]
    return tuple(whole.slice(a, b - a) for a, b in pairwise(edges))


def reordered(case: Case) -> Case:
    """The same data in another file order."""
    return replace(
        case,
        history=tuple(
            table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))
            for table in reversed(case.history)
        ),
    )
