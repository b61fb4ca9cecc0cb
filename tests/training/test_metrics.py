"""The measures, by numbers that a person can work out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training import metrics

RANKS = np.array([1.0, 2.0, 4.0, 12.0, math.inf])
"""First, second and fourth place, one between the cuts, one not in the list."""


def test_hit_rate_counts_labels_in_the_first_k() -> None:
    assert metrics.hit_rate(RANKS, 10) == 3 / 5
    assert metrics.hit_rate(RANKS, 20) == 4 / 5
    assert metrics.hit_rate(RANKS, 1) == 1 / 5


def test_recall_is_found_labels_over_all_labels() -> None:
    assert metrics.recall(RANKS, 10) == 3 / 5
    assert metrics.recall(RANKS, 20) == 4 / 5


def test_mrr_is_the_mean_of_one_over_the_rank() -> None:
    assert metrics.mrr(RANKS, 10) == pytest.approx((1 + 1 / 2 + 1 / 4) / 5)
    assert metrics.mrr(RANKS, 20) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 12) / 5)


def test_ndcg_discounts_by_the_logarithm_of_the_place() -> None:
    # places 1 and 3: 1/log2(2) = 1 and 1/log2(4) = 1/2
    assert metrics.ndcg(np.array([1.0, 3.0]), 10) == pytest.approx(3 / 4)
    assert metrics.ndcg(np.array([1.0, 3.0]), 2) == pytest.approx(1 / 2)


def test_equal_scores_share_the_middle_of_their_places() -> None:
    scores = np.array([5.0, 3.0, 3.0, 3.0, 1.0])
    assert metrics.mid_rank(scores, 0) == 1
    assert metrics.mid_rank(scores, 1) == 3  # places 2, 3 and 4
    assert metrics.mid_rank(scores, 4) == 5


def test_a_label_that_was_not_scored_is_a_miss() -> None:
    scores = np.array([1.0, np.nan])
    assert math.isinf(metrics.mid_rank(scores, None))
    assert math.isinf(metrics.mid_rank(scores, 1))


def test_every_measure_at_every_cut_has_a_name() -> None:
    assert sorted(metrics.measure(RANKS)) == sorted(
        f"{name}_{k}" for name in ("hit_rate", "mrr", "ndcg", "recall") for k in (10, 20)
    )


@given(arrays(np.float64, st.integers(1, 50), elements=st.integers(0, 5).map(float)))
def test_mid_ranks_are_the_places_shared_out(scores: np.ndarray) -> None:
    """Whatever the ties, the ranks of all rows add up to 1 + 2 + ... + n."""
    ranks = [metrics.mid_rank(scores, row) for row in range(len(scores))]
    assert sum(ranks) == pytest.approx(len(scores) * (len(scores) + 1) / 2)
