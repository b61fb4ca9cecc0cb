"""Rows of the ranker: what is in them, in which order, and as of when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.features import RANKED
from training import dataset
from training.dataset import Listed
from training.history import Query, sample

DAY = 86_400_000


def candidate_set(items: Sequence[str]) -> CandidateSet:
    ranks = np.tile(np.arange(1, len(items) + 1, dtype=np.float32)[:, None], (1, len(SOURCES)))
    return CandidateSet(tuple(items), -ranks, ranks, unknown_signals(len(items)))


def query(visited: Sequence[str], label: str, moment: int = 0, session: str = "s") -> Query:
    return Query(session, session, moment, tuple(visited), label, moment + 1000)


def listed(items: Sequence[str], asked: Query) -> Listed:
    row = items.index(asked.label) if asked.label in items else None
    return Listed(asked, candidate_set(items), row)


def column(rows: dataset.Rows, name: str) -> list[float]:
    return [float(value) for value in rows.features[:, RANKED.index(name)]]


def test_a_label_that_was_not_proposed_has_no_row(make_index: Any, visits: Any) -> None:
    index = make_index(visits, 14 * DAY)
    entries = dataset.propose([query(["i1"], "i2"), query(["i1"], "never seen")], index, 20)
    assert entries[0].label is not None
    assert entries[0].candidates.items[entries[0].label] == "i2"
    assert entries[1].label is None
    assert "never seen" not in entries[1].candidates.items


def test_learning_takes_the_label_and_even_draws_of_the_whole_list() -> None:
    items = [f"i{place}" for place in range(100)]
    asked = [listed(items, query(["x"], "i50")) for _ in range(400)]
    lost = listed(items, query(["x"], "unknown"))
    thinned = dataset.with_negatives([*asked, lost], seed=1, negatives=10)
    assert len(thinned) == 400  # the lost label teaches nothing
    places = np.zeros(100)
    for entry in thinned:
        assert len(entry.candidates) == 11
        assert entry.label is not None
        assert entry.candidates.items[entry.label] == "i50"
        for item in entry.candidates.items:
            places[int(item[1:])] += 1
    negatives = np.delete(places, 50)
    # 400 x 10 draws over 99 places: about 40 each, in the first half as in the second
    assert negatives.min() > 15
    assert negatives.max() < 75
    assert abs(negatives[:50].sum() - negatives[50:].sum()) < 250


def test_short_lists_are_taken_whole() -> None:
    entry = dataset.with_negatives([listed(["a", "b", "c"], query(["x"], "b"))], seed=0)[0]
    assert entry.candidates.items == ("a", "b", "c")
    assert entry.label == 1


def test_rows_carry_each_querys_and_each_items_own_values(make_reader: Any) -> None:
    read = make_reader(
        {
            "session_events": lambda session, _: float(len(session)),
            "views_7d": lambda item, moment: float(ord(item[0])) + moment / 1000,
            "price": lambda item, _: {"a": 1.0, "b": 10.0, "c": 100.0}[item],
            "category_id": lambda item, _: {"a": 1, "b": 1, "c": 2}[item],
        }
    )
    first = listed(["b", "c"], query(["a"], "c", moment=5000, session="xx"))
    second = listed(["a", "b", "c"], query(["c", "b"], "a", moment=9000, session="y"))
    rows = dataset.rows_of([first, second], read)
    assert rows.sizes.tolist() == [2, 3]
    assert rows.query.tolist() == [0, 0, 1, 1, 1]
    assert rows.label.tolist() == [0, 1, 1, 0, 0]
    assert rows.items.tolist() == ["b", "c", "a", "b", "c"]
    assert column(rows, "session_events") == [2, 2, 1, 1, 1]
    assert column(rows, "views_7d") == [
        ord(item) + second for item, second in zip("bcabc", (5, 5, 9, 9, 9), strict=True)
    ]
    assert column(rows, "same_category") == [1, 0, 1, 1, 0]  # of a; of b
    assert column(rows, "price_to_last") == pytest.approx(
        [np.log(10), np.log(100), np.log(1 / 10), 0, np.log(10)], abs=1e-6
    )
    assert column(rows, "times_in_session") == [0, 0, 0, 1, 1]
    assert column(rows, "weekday") == [3] * 5  # 1970-01-01 was a Thursday


def test_each_item_and_moment_is_asked_for_once(make_reader: Any) -> None:
    read = make_reader()
    at_once = [listed(["a", "b"], query(["a", "b", "a"], "b", 1000, session)) for session in "st"]
    dataset.rows_of([*at_once, listed(["a"], query(["b"], "a", 2000))], read)
    items, sessions = read.asked
    assert len(sessions) == 3
    assert sorted(items["item_id"]) == ["a", "a", "b", "b"]
    assert str(items.dtypes["event_timestamp"]).endswith("UTC]")


def test_a_visit_without_items_and_a_list_without_rows(make_reader: Any) -> None:
    entries = [listed(["a"], query([], "a")), Listed(query(["x"], "y"), CandidateSet.empty(), None)]
    rows = dataset.rows_of(entries, make_reader())
    assert rows.sizes.tolist() == [1, 0]
    assert rows.label.tolist() == [1]


def test_parts_are_whole_queries(make_reader: Any) -> None:
    entries = [listed(list("abc")[:size], query(["x"], "a", size)) for size in (1, 2, 3)]
    rows = dataset.rows_of(entries, make_reader())
    part = rows.part(1, 3)
    assert part.items.tolist() == ["a", "b", "a", "b", "c"]
    assert part.query.tolist() == [0, 0, 1, 1, 1]
    assert part.sizes.tolist() == [2, 3]


def test_samples_are_seeded_and_keep_the_order(queries: list[Query]) -> None:
    chosen = sample(queries, 100, seed=3)
    assert chosen == sample(queries, 100, seed=3)
    assert chosen != sample(queries, 100, seed=4)
    assert len(set(chosen)) == 100
    assert [entry.moment for entry in chosen] == sorted(entry.moment for entry in chosen)
    assert sample(queries[:5], 100, seed=3) == queries[:5]
