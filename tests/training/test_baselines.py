"""The two rules, on a shop of three visits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa
import pytest

from training import baselines
from training.history import Query

DAY = 86_400_000
CUTOFF = 10 * DAY


@pytest.fixture
def clicks() -> pa.Table:
    """a with b twice, a with c once; d only long ago; z only after the cut-off."""
    rows = [
        ("one", 9 * DAY, "a"), ("one", 9 * DAY + 1, "b"), ("one", 9 * DAY + 2, "a"),
        ("two", 9 * DAY, "b"), ("two", 9 * DAY + 1, "a"), ("two", 9 * DAY + 2, "c"),
        ("old", 1 * DAY, "d"), ("old", 1 * DAY + 1, "a"),
        ("new", 10 * DAY, "a"), ("new", 10 * DAY + 1, "z"),
    ]  # fmt: skip
    visit, time, item = map(list, zip(*rows, strict=True))
    return pa.table({"visit": visit, "time": time, "item_id": item})


def ask(visited: Sequence[str], label: str) -> Query:
    return Query("q", "q", CUTOFF, tuple(visited), label, CUTOFF + 1)


def test_popularity_counts_the_clicks_of_the_week_before(clicks: pa.Table) -> None:
    labels = ["a", "b", "c", "d", "z"]
    ranks = baselines.popularity(clicks, [ask(["x"], label) for label in labels], CUTOFF)
    # a 3 clicks, b 2, c 1; d is too old, z too new
    assert ranks.tolist() == [1, 2, 3, math.inf, math.inf]


def test_covisitation_counts_visits_that_held_both(clicks: pa.Table) -> None:
    labels = ["b", "c", "d", "z"]
    ranks = baselines.covisitation(clicks, [ask(["x", "a"], label) for label in labels], CUTOFF)
    # with a: b in 2 visits; c and d in one each share the places 2 and 3
    assert ranks.tolist() == [1, 2.5, 2.5, math.inf]


def test_a_visitor_without_items_and_an_unknown_item_are_misses(clicks: pa.Table) -> None:
    ranks = baselines.covisitation(clicks, [ask([], "a"), ask(["unknown"], "a")], CUTOFF)
    assert ranks.tolist() == [math.inf, math.inf]
