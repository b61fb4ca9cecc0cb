"""What every way to candidates must do, whatever it is asked: run on each source, on the index in
this process, and on the service. `ask` answers a visit on the planted shop of `shop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from contracts.candidates import SOURCES, CandidateSet
from tests.candidate_service.shop import ODD_IDS, planted_rows

KNOWN = {item for _, _, _, item in planted_rows() if item}
Ask = Callable[[Sequence[str], int, Sequence[str]], CandidateSet]

VISITS: dict[str, list[str]] = {
    "empty": [],
    "one item": ["i05"],
    "two items": ["i05", "i06"],
    "back and forth": ["i05", "i06", "i05", "i06"],
    "unknown": ["no such item", "nor this"],
    "known, then unknown": ["i05", "no such item"],
    "odd": list(ODD_IDS),
    "minus one": ["-1"],
    "unknown minus two": ["-2"],
    "NUL": ["nul\x00byte"],
    "not Unicode": ["\ud800"],
    "no text": [""],
    "too long": ["x" * 10_000],
    "10,000 items": [f"i{number % 40:02d}" for number in range(10_000)],
}
COUNTS = (1, 7, 30, 1000)


def check(found: CandidateSet, visit: Sequence[str], count: int, exclude: Sequence[str]) -> None:
    """The rules that hold for any answer to any visit."""
    assert len(found) <= count
    assert len(set(found.items)) == len(found)
    assert set(found.items) <= KNOWN - set(exclude)
    for column in range(len(SOURCES)):
        ranks, scores = found.ranks[:, column], found.scores[:, column]
        ranked = np.flatnonzero(~np.isnan(ranks))
        by_rank = ranked[np.argsort(ranks[ranked])]
        assert len(np.unique(ranks[ranked])) == len(ranked)
        assert all(better >= worse for better, worse in pairwise(scores[by_rank]))
        assert not np.isnan(scores[ranked]).any()
    assert not np.isnan(found.ranks).all(axis=1).any()


class Behaviour:
    """A class of tests derives from this and gives the fixture `ask`."""

    @pytest.mark.parametrize("count", COUNTS)
    @pytest.mark.parametrize("name", VISITS)
    def test_any_visit(self, ask: Ask, name: str, count: int) -> None:
        check(ask(VISITS[name], count, ()), VISITS[name], count, ())

    @pytest.mark.parametrize("name", VISITS)
    def test_excluded_items_stay_out(self, ask: Ask, name: str) -> None:
        exclude = ["i06", "i07", "no such item", "-1", "\ud800", "i06"]
        check(ask(VISITS[name], 20, exclude), VISITS[name], 20, exclude)

    def test_everything_excluded(self, ask: Ask) -> None:
        assert len(ask(["i05"], 10, sorted(KNOWN))) == 0

    @pytest.mark.parametrize("count", [0, -1])
    def test_nothing_wanted(self, ask: Ask, count: int) -> None:
        assert len(ask(["i05"], count, ())) == 0

    def test_same_question_same_answer(self, ask: Ask) -> None:
        first, second = (ask(["i05", "i09"], 30, ()) for _ in range(2))
        assert first.items == second.items
        np.testing.assert_array_equal(first.scores, second.scores)


class MergedBehaviour(Behaviour):
    """What the merged list does beside."""

    def test_what_always_follows_comes_first(self, ask: Ask) -> None:
        assert ask(["i05"], 10, ["i05"]).items[0] == "i06"

    @pytest.mark.parametrize("name", ["empty", "unknown", "not Unicode"])
    def test_an_unknown_visitor_gets_the_most_popular(self, ask: Ask, name: str) -> None:
        found = ask(VISITS[name], 10, ())
        assert found.items[0] == "i00"
        assert len(found) == 10
        assert {source for row in range(10) for source in found.sources_of(row)} == {"popular"}

    def test_as_many_as_there_are(self, ask: Ask) -> None:
        assert set(ask(["i05"], 1000, ["i06"]).items) == KNOWN - {"i06"}

    def test_a_source_scores_what_others_proposed(self, ask: Ask) -> None:
        found = ask(["i05"], 1000, ())
        column = SOURCES.index("vector")
        odd = [row for row, item in enumerate(found.items) if item in ODD_IDS]
        assert np.isnan(found.scores[odd, column]).all()  # they have no vector
        assert not np.isnan(np.delete(found.scores[:, column], odd)).any()
        assert not np.isnan(found.scores[:, SOURCES.index("popular")]).any()
