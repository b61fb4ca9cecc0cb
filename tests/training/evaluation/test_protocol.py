"""Everything that is fitted comes from the train part; and the figures come from the test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation import tables
from training.evaluation.run import END, Evaluation, Fitted


class Run:
    """An evaluation of one table: what it fitted and how high it put the labels."""

    def __init__(self, folder: Path, test: list[tables.Session]) -> None:
        folder.mkdir()
        train = tables.sessions(tables.TRAIN, 1)
        self.run: Evaluation = tables.evaluation(
            tables.write(folder / "t.parquet", train, test), folder / "w"
        )
        self.fitted: Fitted = self.run.fit()
        self.prefixes = self.run.shop.prefixes(self.run.shop.cutoff, END)
        self.ranked = self.run.rank(self.fitted, self.prefixes)

    def learned(self) -> tuple[str, str, object, object]:
        return (
            self.fitted.ranker.booster.model_to_string(),
            self.fitted.index.version,
            self.fitted.parameters,
            self.fitted.windows,
        )

    def hit_rate(self) -> float:
        return float(np.mean(self.ranked.ranks["ranker"] <= 10))


TEST = tables.sessions(tables.TEST, 2)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("honest") / "run", TEST)


@pytest.fixture(scope="module")
def muddled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same with shuffled test clicks."""
    return Run(tmp_path_factory.mktemp("muddled") / "run", tables.shuffled(TEST))


def test_the_planted_rule_is_learned(honest: Run) -> None:
    assert honest.hit_rate() > 0.75
    assert honest.fitted.learned > 100


def test_shuffled_test_labels_change_nothing_that_is_fitted(honest: Run, muddled: Run) -> None:
    assert muddled.learned() == honest.learned()


def test_shuffled_test_labels_are_not_found(muddled: Run) -> None:
    """10 of 60 items by chance, and a few that visits have in common."""
    assert muddled.hit_rate() < 0.35


def test_items_of_the_test_part_alone_change_nothing_and_are_never_listed(
    honest: Run, tmp_path: Path
) -> None:
    planted = [[*session, "planted-1", "planted-2", "planted-1"] for session in TEST]
    found = Run(tmp_path / "run", planted)
    assert found.learned() == honest.learned()
    assert not {"planted-1", "planted-2"} & set(found.ranked.items)
    labels = np.array([found.run.shop.items[label] for _, label in found.prefixes])
    new = np.char.startswith(labels.astype(str), "planted")
    assert new.sum() == 3 * len(TEST)  # they are asked for, and count as missed
    assert np.isinf(found.ranked.ranks["ranker"][new]).all()


def test_a_rank_says_whether_the_label_is_in_the_list(honest: Run) -> None:
    ranks, lists = honest.ranked.ranks["ranker"], honest.ranked.lists
    told = 0
    for row, (_, label) in enumerate(honest.prefixes):
        named = [honest.ranked.items[number] for number in lists[row] if number >= 0]
        if not 18 < ranks[row] < 23:  # ties stand at their middle
            assert (str(honest.run.shop.items[label]) in named) == (ranks[row] <= 20)
            told += 1
    assert told > 200


def test_candidates_of_a_label_window_know_nothing_of_it(tmp_path: Path) -> None:
    run = tables.evaluation(
        tables.write(tmp_path / "t.parquet", tables.sessions(tables.TRAIN, 1), TEST), tmp_path / "w"
    )
    seen: list[tuple[int, int]] = []
    built = run._index  # what it is asked for is the point

    def noted(cutoff: int, vectors: object, parameters: object) -> object:
        index = built(cutoff, vectors, parameters)  # type: ignore[arg-type]
        seen.append((cutoff, index.manifest.rows))
        return index

    run._index = noted  # type: ignore[method-assign,assignment]
    fitted = run.fit()
    times = run.shop.times
    starts = [start for start, _ in fitted.windows]
    assert {cutoff for cutoff, _ in seen} == {*starts, run.shop.cutoff}
    assert all(rows == int(np.count_nonzero(times < cutoff)) for cutoff, rows in seen)
