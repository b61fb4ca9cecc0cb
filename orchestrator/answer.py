"""The last step: ranked candidates as the client and the logs get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.candidates import SOURCES, CandidateSet
from orchestrator.ports import Floats


@dataclass(frozen=True)
class Ranked:
    """The top of the list, best first: k candidates, their scores [k], the release whose ranker
    scored them ("" where none did) and the feature rows [k, features] that it saw."""

    candidates: CandidateSet
    scores: Floats
    release: str = ""
    features: tuple[str, ...] = ()
    rows: Floats | None = None

    @classmethod
    def nothing(cls) -> Ranked:
        return cls(CandidateSet.empty(), np.empty(0, dtype=np.float32))


def by_candidate_order(candidates: CandidateSet) -> Floats:
    """Scores of candidates that no ranker scored: 1 over the place, which descends and means no more."""
    return (1 / np.arange(1, len(candidates) + 1)).astype(np.float32)


def answer_items(ranked: Ranked) -> list[dict[str, Any]]:
    """One object an item: its id, its score and the sources that proposed it, best rank first."""
    ranks = ranked.candidates.ranks
    order = np.argsort(ranks, axis=1, kind="stable").tolist()  # nan, not proposed, comes last
    found = (~np.isnan(ranks)).sum(axis=1).tolist()
    scores = ranked.scores.astype(np.float64).round(6).tolist()
    return [
        {
            "item_id": item,
            "score": score,
            "sources": [SOURCES[column] for column in columns[:count]],
        }
        for item, score, columns, count in zip(
            ranked.candidates.items, scores, order, found, strict=True
        )
    ]
