"""Every source over item tables, and session kNN, beside a plain reading of its formula."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from candidate_service.index import CandidateIndex, build_index
from candidate_service.source import Parameters
from candidate_service.sources import source_classes
from candidate_service.sources.knn import Knn
from contracts.candidates import SIGNALS
from tests.candidate_service.shop import CUTOFF, DAY, Row, events, visit

Shop = list[tuple[list[str], int]]
"""Visits: their items and how many days before the cut-off their last click was."""
Table = dict[tuple[str, str], float]
NAMES = [f"i{number}" for number in range(12)]
ASKED = (["i1"], ["i1", "i4"], ["i3", "i2", "i3", "i7"])


@pytest.fixture(scope="module")
def shop() -> Shop:
    rng = np.random.default_rng(4)
    return [
        (rng.choice(NAMES, size=int(rng.integers(2, 7))).tolist(), int(rng.integers(1, 90)))
        for _ in range(60)
    ]


@pytest.fixture(scope="module")
def index(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    return built(shop, tmp_path_factory.mktemp("tables"))


def built(shop: Shop, folder: Path) -> CandidateIndex:
    rows: list[Row] = []
    for number, (items, days) in enumerate(shop):
        rows += visit(f"v{number:02d}", items, CUTOFF - days * DAY)
    manifest = build_index(events(rows), None, CUTOFF, folder)
    return CandidateIndex.load(folder / manifest.version)


def clicks(shop: Shop, parameters: Parameters) -> list[list[tuple[str, float]]]:
    """(item, weight by age) of each visit; clicks are a minute apart."""
    minute = 1 / (24 * 60)
    return [
        [
            (item, math.exp(-(days + (len(items) - 1 - place) * minute) / parameters["age_days"]))
            for place, item in enumerate(items)
        ]
        for items, days in shop
    ]


def within(shop: Shop, gap: int, by_gap: Callable[[int], float], parameters: Parameters) -> Table:
    found: Table = defaultdict(float)
    for walk in clicks(shop, parameters):
        for place, (item, _) in enumerate(walk):
            for step in range(1, gap + 1):
                if place + step < len(walk):
                    after, weight = walk[place + step]
                    found[item, after] += weight * by_gap(step)
    return found


def over_rows(table: Table, shrink: float) -> Table:
    sums: dict[str, float] = defaultdict(float)
    for (row, _), value in table.items():
        sums[row] += value
    return {(row, column): value / (sums[row] + shrink) for (row, column), value in table.items()}


def transition(shop: Shop, p: Parameters) -> Table:
    return over_rows(within(shop, 1, lambda _: 1.0, p), p["shrink"])


def sequential(shop: Shop, p: Parameters) -> Table:
    return over_rows(within(shop, 10, lambda gap: 1 / gap, p), p["shrink"])


def covisitation(shop: Shop, p: Parameters) -> Table:
    after = within(shop, 20, lambda gap: math.exp((1 - gap) / p["reach"]), p)
    counts: dict[str, float] = defaultdict(float)
    for walk in clicks(shop, p):
        for item, weight in walk:
            counts[item] += weight
    return {
        (row, column): (after.get((row, column), 0) + after.get((column, row), 0))
        / math.sqrt(counts[row] * counts[column])
        for row in NAMES
        for column in NAMES
    }


def two_hop(shop: Shop, p: Parameters) -> Table:
    after = within(shop, 10, lambda gap: math.exp((1 - gap) / p["reach"]), p)
    near = {
        (row, column): after.get((row, column), 0) + after.get((column, row), 0)
        for row in NAMES
        for column in NAMES
    }
    degree = {row: sum(near[row, column] for column in NAMES) or 1 for row in NAMES}
    edge = {
        (row, column): value / math.sqrt(degree[row] * degree[column])
        for (row, column), value in near.items()
    }
    return {
        (row, column): sum(edge[row, middle] * edge[middle, column] for middle in NAMES)
        for row in NAMES
        for column in NAMES
    }


TABLES = {
    "transition": transition,
    "sequential": sequential,
    "covisitation": covisitation,
    "two_hop": two_hop,
}


def steps(visited: Sequence[str]) -> dict[str, int]:
    """Of each item, how many visited items came after its latest visit."""
    return {item: len(visited) - 1 - place for place, item in enumerate(visited)}


@pytest.mark.parametrize("visited", ASKED)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_its_formula(
    index: CandidateIndex, shop: Shop, name: str, visited: list[str]
) -> None:
    parameters = source_classes()[name].defaults
    table = TABLES[name](shop, parameters)
    right = {
        item: sum(
            parameters["step_weight"] ** step * table.get((own, item), 0)
            for own, step in steps(visited).items()
        )
        for item in NAMES
    }
    found, scores = index.propose(name, visited, 12)
    assert list(scores) == sorted(scores, reverse=True)
    told = dict(zip(found, scores.tolist(), strict=True))
    assert set(told) == {item for item, value in right.items() if value > 0}
    for item, score in told.items():
        assert score == pytest.approx(right[item], rel=1e-4)


def neighbours(shop: Shop, visited: Sequence[str], p: Parameters) -> tuple[Table, Table]:
    """Scores of items, and their signals by (item, signal)."""
    held = {item: sum(item in items for items, _ in shop) for item in NAMES}
    idf = {item: math.log(len(shop) / held[item]) + 1e-3 for item in NAMES}
    own = sorted(steps(visited).items(), key=lambda pair: pair[1])
    scores: Table = defaultdict(float)
    told: Table = defaultdict(float)
    for items, days in shop:
        shared = [(item, step) for item, step in own if item in items]
        if not shared:
            continue
        alike = sum(math.exp(-step * p["step_decay"]) * idf[item] for item, step in shared)
        alike *= (math.exp(-days / p["age_days"]) + p["floor"]) / math.sqrt(len(items) + 1)
        newest, step = shared[0]
        at = len(items) - 1 - items[::-1].index(newest)
        for place, item in enumerate(items):
            distance = place - at
            weight = math.exp(-abs(distance) / p["item_decay"])
            weight = p["match"] if distance == 0 else weight * (p["before"] if distance < 0 else 1)
            scores[item, ""] += alike * weight
            told[item, "knn_sum"] += alike
            told[item, "knn_sessions"] += 1
            told[item, "knn_best"] = max(told[item, "knn_best"], alike)
            told[item, "knn_two_shared"] += len(shared) >= 2
            told[item, "knn_newest"] = min(told.get((item, "knn_newest"), math.inf), days)
            told[item, "knn_next"] += alike * (step == 0 and distance == 1)
    for item in NAMES:
        told[item, "knn_rate"] = told[item, "knn_sum"] / (held[item] + 5)
    return scores, told


@pytest.mark.parametrize("visited", ASKED)
def test_session_knn_is_its_formula(index: CandidateIndex, shop: Shop, visited: list[str]) -> None:
    right, _ = neighbours(shop, visited, Knn.defaults)
    found, scores = index.propose("knn", visited, 12)
    assert set(found) == {item for item, _ in right}
    assert list(scores) == sorted(scores, reverse=True)
    for item, score in zip(found, scores.tolist(), strict=True):
        assert score == pytest.approx(right[item, ""], rel=1e-4)


@pytest.mark.parametrize("visited", ASKED)
def test_signals_of_session_knn(index: CandidateIndex, shop: Shop, visited: list[str]) -> None:
    _, right = neighbours(shop, visited, Knn.defaults)
    found = index.candidates(visited, 12, ())
    assert len(found) == len(NAMES)
    for name in Knn.signals:
        column = found.signals[:, SIGNALS.index(name)]
        for item, value in zip(found.items, column.tolist(), strict=True):
            assert value == pytest.approx(right[item, name], rel=1e-4, abs=1e-6), (name, item)


def test_old_visits_count_less(tmp_path: Path) -> None:
    index = built([(["a", "old"], 80), (["a", "new"], 1)], tmp_path)
    for name in (*TABLES, "knn"):
        if name != "two_hop":  # both lead back to a
            assert index.propose(name, ["a"], 1, ["a"])[0] == ("new",), name


def test_two_hops_find_what_no_visit_held_together(tmp_path: Path) -> None:
    index = built([(["a", "b"], 1), (["b", "c"], 1)], tmp_path)
    assert "c" in index.propose("two_hop", ["a"], 5)[0]
    for name in ("transition", "sequential", "covisitation", "knn"):
        assert "c" not in index.propose(name, ["a"], 5)[0]
