"""Proposals of several sources made one list: reciprocal-rank fusion with guaranteed places.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009; weighted here, with their constant for the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from candidate_service.source import Floats, Ints

Parameters = Mapping[str, Mapping[str, float]]
DEFAULTS: Mapping[str, float] = {"constant": 40.0}


def merge(
    proposals: Sequence[Ints],
    weights: Sequence[float],
    quotas: Sequence[float],
    constant: float,
    count: int,
) -> tuple[Ints, Floats]:
    """The merged items, best first, and the rank that each source gave them.

    proposals: of each source, best first, each item once. weights: of each source in the fused
    score, sum of weight / (constant + rank); equal scores go by item number. quotas: share of
    the `count` places that a source's best are sure of; together at most 1.
    Returns int32 [n] and float32 [n, sources], ranks from 1, nan where a source did not propose.
    """
    items, group = np.unique(np.concatenate(proposals), return_inverse=True)
    ranks = np.full((len(items), len(proposals)), np.nan, dtype=np.float32)
    fused, sure = np.zeros(len(items)), np.zeros(len(items), dtype=bool)
    start = 0
    for source, proposal in enumerate(proposals):
        rows = group[start : start + len(proposal)]
        start += len(proposal)
        rank = np.arange(1, len(proposal) + 1)
        ranks[rows, source] = rank
        fused[rows] += weights[source] / (constant + rank)
        sure[rows[: int(quotas[source] * count)]] = True
    chosen = np.lexsort((-fused, ~sure))[:count]
    order = chosen[np.lexsort((chosen, -fused[chosen]))]
    return items[order], ranks[order]
