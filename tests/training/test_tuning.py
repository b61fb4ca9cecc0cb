"""What is tuned to a shop: how its sources are asked and merged."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from candidate_service.index import CandidateIndex, build_index
from candidate_service.merge import ASKED
from candidate_service.sources import source_classes
from contracts.candidates import SOURCES
from tests.candidate_service.shop import CUTOFF, DAY, Row, events, visit
from training.history import Query
from training.tuning import tune

ITEMS = [f"i{number:02d}" for number in range(50)]


def follow(item: str, step: int = 1) -> str:
    return ITEMS[(ITEMS.index(item) + step) % len(ITEMS)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    """Every item is followed by the next one; what is popular says nothing."""
    folder = tmp_path_factory.mktemp("tuning")
    rng = np.random.default_rng(1)
    rows: list[Row] = []
    for number in range(600):
        item = ITEMS[int(rng.integers(50))]
        rows += visit(f"v{number:03d}", [item, follow(item), follow(item, 2)], CUTOFF - DAY)
    manifest = build_index(events(rows), None, CUTOFF, folder)
    return CandidateIndex.load(folder / manifest.version)


def query(visited: tuple[str, ...], label: str) -> Query:
    return Query("v", "s", CUTOFF, visited, label, CUTOFF + 1, "click")


def asked(count: int = 300, seed: int = 2) -> list[Query]:
    """What comes next follows the first item; the ones after it are anything."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        visited = tuple(ITEMS[number] for number in rng.choice(50, size=4, replace=False))
        found.append(query(visited, follow(visited[0])))
    return found


def test_where_an_older_item_tells_what_comes_older_ones_are_made_to_count_more(
    index: CandidateIndex,
) -> None:
    found = tune(index, asked(), 20)
    defaults = index.manifest.parameters
    assert found["sequential"]["step_weight"] > defaults["sequential"]["step_weight"]
    better, before = index.asked_with(found), index
    others = asked(200, seed=3)

    def first(of: CandidateIndex) -> float:
        return float(
            np.mean([q.label in of.candidates(q.visited, 5, q.visited[-1:]).items for q in others])
        )

    assert first(better) > first(before)


def test_the_same_queries_give_the_same_answer(index: CandidateIndex) -> None:
    assert tune(index, asked(), 20) == tune(index, asked(), 20)


def test_what_says_nothing_changes_nothing_but_names_the_weights(index: CandidateIndex) -> None:
    """Labels drawn by lot: no value is better than the one before by more than chance."""
    rng = np.random.default_rng(8)
    drawn = [q._replace(label=ITEMS[int(rng.integers(50))]) for q in asked(40)]
    found = tune(index, drawn, 20)
    assert {"weight"} <= {name for values in found.values() for name in values}
    kept = sum(
        found[name]["weight"] == index.manifest.parameters[name]["weight"] for name in SOURCES
    )
    assert kept >= len(SOURCES) - 3


def test_without_a_known_label_nothing_is_tuned(index: CandidateIndex) -> None:
    assert tune(index, [], 20) == {}
    assert tune(index, [query(("i01",), "unheard of")], 20) == {}


def test_a_source_that_is_left_out_keeps_its_weight(index: CandidateIndex) -> None:
    usual = index.manifest.parameters["knn"]["weight"]
    assert tune(index.without(["knn"]), asked(), 20)["knn"] == {"weight": usual}


def test_queries_beyond_the_most_are_not_asked(
    index: CandidateIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[str, ...]] = set()
    propose = CandidateIndex.propose

    def noted(self: CandidateIndex, source: str, items: tuple[str, ...], *rest: object) -> object:
        seen.add(tuple(items))
        return propose(self, source, items, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CandidateIndex, "propose", noted)
    queries = asked(19)
    tune(index, queries, 20, most=10)
    assert seen == {query.visited for query in queries[::2]}  # the newest among them


# --- what it learns, and what it does not look at ------------------------------------------------


def back(count: int, seed: int) -> list[Query]:
    """What comes next is what was looked at two steps before."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        visited = tuple(ITEMS[number] for number in rng.choice(50, size=4, replace=False))
        found.append(query(visited, visited[1]))
    return found


def hits(index: CandidateIndex, queries: list[Query], count: int) -> float:
    return float(
        np.mean(
            [q.label in index.candidates(q.visited, count, q.visited[-1:]).items for q in queries]
        )
    )


def test_what_is_tuned_finds_more_of_what_was_not_asked(index: CandidateIndex) -> None:
    found = tune(index, back(300, 4), 3)
    others = back(200, 5)
    assert hits(index.asked_with(found), others, 3) > hits(index, others, 3) + 0.4


def test_a_weight_of_nothing_rises_where_only_that_source_knows(index: CandidateIndex) -> None:
    """What was seen comes again: the source of the session tells it first."""
    # two steps from an item lead back to it, so that source knows too
    off = index.asked_with({"session": {"weight": 0.0}}).without(["two_hop"])
    found = tune(off, back(300, 4), 20)
    assert found["session"]["weight"] > 0
    others = back(200, 5)
    assert hits(off.asked_with(found), others, 3) > hits(off, others, 3) + 0.2


def test_on_the_queries_it_is_given_it_is_never_worse_than_the_defaults(
    index: CandidateIndex,
) -> None:
    for queries in (asked(150, seed=6), back(150, 6), asked(75, seed=7) + back(75, 7)):
        found = tune(index, queries, 10)
        assert hits(index.asked_with(found), queries, 10) >= hits(index, queries, 10)


def test_only_what_was_visited_and_what_came_next_counts(index: CandidateIndex) -> None:
    """Not who, when, or what became of it; and labels that no source can name say nothing."""
    plain = asked()
    other = [
        q._replace(visit=f"x{n}", session_id=f"y{n}", moment=n, label_time=0, kind="purchase")
        for n, q in enumerate(plain)
    ]
    unheard = [query(("i01", "i02"), "unheard of")] * 40
    expected = tune(index, plain, 20)
    assert tune(index, other, 20) == expected
    assert tune(index, plain[:100] + unheard + plain[100:], 20) == expected


def test_the_index_that_is_tuned_stays_as_it_is(index: CandidateIndex) -> None:
    before = copy.deepcopy(index.manifest.parameters)
    answer = index.candidates(("i03", "i04"), 20)
    found = tune(index, asked(), 20)
    assert found["sequential"] != before["sequential"]
    assert index.manifest.parameters == before
    assert index.candidates(("i03", "i04"), 20).items == answer.items


def test_what_is_found_is_among_what_may_be_asked(index: CandidateIndex) -> None:
    """Parameters that tables depend on are never touched, and weights stay above nothing."""
    found = tune(index, back(200, 8), 20)
    assert set(found) <= {*SOURCES, "merge"}
    assert found["merge"]["constant"] in ASKED["constant"]
    for name in SOURCES:
        values = dict(found[name])
        assert values.pop("weight") > 0
        asked_of = source_classes()[name].asked
        for parameter, value in values.items():
            assert value in asked_of[parameter]


def test_the_item_that_is_looked_at_is_proposed_where_that_counts(index: CandidateIndex) -> None:
    """A second click on the current item: found by the source of the session, if it may be."""
    rng = np.random.default_rng(9)
    again = []
    for _ in range(200):
        visited = tuple(ITEMS[number] for number in rng.choice(50, size=3, replace=False))
        again.append(query(visited, visited[-1]))
    kept = tune(index, again, 3)
    assert {name: kept[name]["weight"] for name in SOURCES} == {
        name: index.manifest.parameters[name]["weight"] for name in SOURCES
    }  # nothing can be gained: the label is no candidate
    allowed = tune(index, again, 1, current=True)
    better = index.asked_with(allowed)
    first = [q.label == better.candidates(q.visited, 1).items[0] for q in again]
    before = [q.label == index.candidates(q.visited, 1).items[0] for q in again]
    assert np.mean(first) > np.mean(before)


def test_it_tells_how_far_it_is(index: CandidateIndex) -> None:
    told: list[tuple[int, int]] = []
    tune(index, asked(20), 20, report=lambda done, of: told.append((done, of)))
    assert told == [(done, len(SOURCES) + 1) for done in range(len(SOURCES) + 1)]
