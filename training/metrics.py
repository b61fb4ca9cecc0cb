"""Measures of a ranked list against the one item that came next.

A query's rank is the place of its label among the scored items, from 1: equal scores share the
middle of their places, so that a method that cannot tell items apart gains nothing by it. A label
that was not scored at all has rank infinity: it stands below every list.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.float64]
"""One rank a query, [queries]."""
CUTS = (10, 20)
"""Lengths of list that are measured."""


def mid_rank(scores: npt.NDArray[np.floating], label: int | None) -> float:
    """Rank of row `label` among `scores` [n]; infinity for None, and where its score is nan."""
    if label is None or np.isnan(scores[label]):
        return np.inf
    above = np.count_nonzero(scores > scores[label])
    equal = np.count_nonzero(scores == scores[label])
    return float(above + (equal + 1) / 2)


def hit_rate(ranks: Ranks, k: int) -> float:
    """Share of queries whose label stands in the first k."""
    return float(np.mean(ranks <= k))


def recall(ranks: Ranks, k: int) -> float:
    """Share of the labels of all queries that stand in the first k.

    With one label a query, as here, this is the hit rate.
    """
    return float(np.count_nonzero(ranks <= k) / len(ranks))


def mrr(ranks: Ranks, k: int) -> float:
    """Mean of 1/rank, 0 beyond the first k."""
    return float(np.mean(np.where(ranks <= k, 1 / ranks, 0)))


def ndcg(ranks: Ranks, k: int) -> float:
    """Mean of 1/log2(rank + 1), 0 beyond the first k: the best gain of one label is 1."""
    return float(np.mean(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0)))


MEASURES = {"hit_rate": hit_rate, "mrr": mrr, "ndcg": ndcg, "recall": recall}


def measure(ranks: Ranks) -> dict[str, float]:
    """Every measure at every cut: `hit_rate_10`, ... `recall_20`."""
    return {f"{name}_{k}": of(ranks, k) for k in CUTS for name, of in MEASURES.items()}
