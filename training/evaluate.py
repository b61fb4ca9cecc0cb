"""Offline quality on the test window: the ranker beside what it has to beat, on the same queries.

Every item of the shop is ranked: a label that is not among the candidates is a miss, whatever the
ranker would have made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import SOURCES
from training.dataset import FeatureReader, Listed, Rows, rows_of
from training.metrics import Ranks, measure, mid_rank

BLOCK = 2000
"""Queries whose features are held in memory at once."""
SERVED = 20
"""Places of a served list: what drift is measured against."""

Score = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluated:
    """ranks: [queries]; served: features [n, len(RANKED)], scores and items of the best `SERVED`
    rows of each query, best first."""

    ranks: Ranks
    features: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float64]
    items: npt.NDArray[np.object_]


def evaluate(
    listed: Sequence[Listed], read: FeatureReader, score: Score, report: Report
) -> Evaluated:
    """Rank the candidates of each query; `report(done, of)` after every block."""
    blocks = []
    for start in range(0, len(listed), BLOCK):
        block = listed[start : start + BLOCK]
        blocks.append(_block(block, rows_of(block, read), score))
        report(start + len(block), len(listed))
    return Evaluated(
        np.concatenate([block.ranks for block in blocks]),
        np.concatenate([block.features for block in blocks]),
        np.concatenate([block.scores for block in blocks]),
        np.concatenate([block.items for block in blocks]),
    )


def _block(listed: Sequence[Listed], rows: Rows, score: Score) -> Evaluated:
    scores = score(rows.features) if len(rows.label) else np.empty(0)
    ranks = []
    served = []
    for entry, start in _starts(listed):
        own = scores[start : start + len(entry.candidates)]
        ranks.append(mid_rank(own, entry.label))
        served.append(start + np.argsort(-own, kind="stable")[:SERVED])
    best = np.concatenate(served)
    return Evaluated(np.array(ranks), rows.features[best], scores[best], rows.items[best])


def _starts(listed: Sequence[Listed]) -> Iterator[tuple[Listed, int]]:
    start = 0
    for entry in listed:
        yield entry, start
        start += len(entry.candidates)


def merged_ranks(listed: Sequence[Listed]) -> Ranks:
    """The label's place in the candidates as they were merged: what is served without the ranker."""
    return np.array([np.inf if entry.label is None else entry.label + 1.0 for entry in listed])


def candidate_recall(listed: Sequence[Listed]) -> dict[str, float]:
    """Share of labels among the merged candidates, and among those that each source proposed.

    A source counts with what it brought into the merged list, not with all that it knew.
    """
    found = np.zeros(len(SOURCES))
    for entry in listed:
        if entry.label is not None:
            found += ~np.isnan(entry.candidates.ranks[entry.label])
    merged = sum(entry.label is not None for entry in listed)
    shares = dict(zip(SOURCES, (found / len(listed)).tolist(), strict=True))
    return {"merged": merged / len(listed), **shares}


def summary(
    methods: dict[str, Ranks],
    listed: Sequence[Listed],
    asked: int,
    count: int,
    known: Collection[str],
) -> dict[str, Any]:
    """The result as the release and MLflow keep it.

    known: items clicked before the test window. No method here can name another one, so the
    share of labels among them is what all of them are up against.
    """
    possible = np.array([entry.query.label in known for entry in listed])
    return {
        "queries": len(listed),
        "queries_of_window": asked,
        "candidates": count,
        "rule": (
            "every prefix of every visit of the test window is a query, drawn evenly where there"
            " are more than are evaluated; all items are ranked, a label that is not among the"
            " candidates is a miss, equal scores share the middle of their places"
        ),
        "quality": {name: measure(ranks) for name, ranks in methods.items()},
        "known_labels": float(possible.mean()),
        "quality_of_known_labels": {
            name: measure(ranks[possible]) for name, ranks in methods.items() if possible.any()
        },
        "candidate_recall": candidate_recall(listed),
    }
