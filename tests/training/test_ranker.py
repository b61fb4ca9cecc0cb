"""How many trees a ranker gets, and what it says of parameters that are none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from contracts.errors import UsageError
from contracts.features import RANKED
from training import ranker
from training.dataset import Rows
from training.metrics import mid_rank, ndcg

Floats = npt.NDArray[np.float32]


def rows(queries: int, features: Floats, weight: float = 1.0) -> Rows:
    """Ten candidates each, the label first: where the merge would put it."""
    label = np.tile(np.eye(1, 10, dtype=np.int8)[0], queries)
    numbers = np.repeat(np.arange(queries, dtype=np.int32), 10)
    return Rows(
        features, label, numbers, np.full(queries, 10), np.array(["i"] * queries * 10, dtype=object),
        np.full(queries, weight, np.float32),
    )  # fmt: skip


def test_a_ranker_that_tells_nothing_apart_gains_nothing_by_the_order_of_the_rows() -> None:
    nothing = np.full((1000, len(RANKED)), np.nan, np.float32)
    found = ranker.fit([rows(100, nothing), rows(100, nothing)])
    assert found.ndcg == pytest.approx(1 / np.log2(5.5 + 1))  # the middle of ten


def test_what_decides_is_the_figure_that_is_reported() -> None:
    """Queries that count as their labels weigh, too."""
    rng = np.random.default_rng(4)
    features = np.full((2000, len(RANKED)), np.nan, np.float32)
    features[:, RANKED.index("price")] = rng.integers(0, 3, 2000)  # many are equal
    features[::10, RANKED.index("price")] += rng.integers(0, 2, 200)
    made = rows(200, features, weight=2.0)
    earlier, later = ranker.validation_split([made])
    booster, trees = ranker.stopped_early(earlier, later, 0, {})
    scores = np.asarray(booster.predict(later.features, num_iteration=trees)).reshape(-1, 10)
    ranks = np.array([mid_rank(own, 0) for own in scores])
    assert ranker.fit([made]).ndcg == pytest.approx(ndcg(ranks, 20))


def test_parameters_that_lightgbm_refuses_are_told() -> None:
    nothing = np.zeros((1000, len(RANKED)), np.float32)
    with pytest.raises(UsageError, match=r"LightGBM takes no ranker with .*'num_leaves': -3"):
        ranker.fit([rows(100, nothing)], given={"num_leaves": -3})
