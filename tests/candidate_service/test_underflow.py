"""Weights so small that float32 makes 0 of them: an item is still proposed at most once."""

from __future__ import annotations

from pathlib import Path

import pytest

from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SOURCES
from tests.candidate_service.shop import CUTOFF, DAY, Row, events, visit

NOW = 20_600 * DAY
"""In 2026; the visits are of 1970."""


def built(
    folder: Path, rows: list[Row], cutoff: int, **parameters: dict[str, float]
) -> CandidateIndex:
    manifest = build_index(events(rows), None, cutoff, folder, parameters=parameters)
    return CandidateIndex.load(folder / manifest.version)


@pytest.fixture(scope="module")
def ancient(tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    rows = [
        row
        for one in range(4)
        for other in range(4)
        for row in visit(f"{one}{other}", [f"a{one}", f"x{other}"], 10 * DAY)
    ]
    return built(tmp_path_factory.mktemp("ancient"), rows, NOW)


@pytest.mark.parametrize("source", SOURCES)
def test_ancient_events(ancient: CandidateIndex, source: str) -> None:
    found, _ = ancient.propose(source, [f"a{number}" for number in range(4)], 99)
    assert len(set(found)) == len(found) <= len(ancient)


def test_the_oldest_items_of_a_long_visit(tmp_path: Path) -> None:
    rows = [row for one, other in ("ax", "bx", "cy", "dz") for row in visit(one, [one, other])]
    index = built(tmp_path, rows, CUTOFF, transition={"step_weight": 0.2}, knn={"step_decay": 1.2})
    visited = ["a", "b", *["c", "d"] * 49]
    assert set(index.propose("transition", visited, 99)[0]) == {"y", "z"}
    found = index.propose("knn", visited, 99)[0]
    assert len(set(found)) == len(found)
    assert len(set(index.candidates(visited, 9).items)) == 7
