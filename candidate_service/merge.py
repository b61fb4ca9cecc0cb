"""Proposals of several sources made one list: reciprocal-rank fusion with guaranteed places.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009; weighted here, with a constant that is learned like the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from candidate_service.board import Board, Floats, Ints, top

Parameters = Mapping[str, Mapping[str, float]]
DEFAULTS: Mapping[str, float] = {"constant": 40.0}
ASKED: Mapping[str, tuple[float, ...]] = {"constant": (5.0, 10.0, 20.0, 40.0, 80.0)}


class Proposals:
    """What sources propose, best first, each item once: items int32 [sources, depth], of which the
    first `counts` [sources] are filled."""

    def __init__(self, found: Sequence[Ints]) -> None:
        depth = max((len(items) for items in found), default=0)
        self.items = np.zeros((len(found), depth), dtype=np.int32)
        self.counts = np.array([len(items) for items in found], dtype=np.int32)
        for source, items in enumerate(found):
            self.items[source, : len(items)] = items


def merge(
    proposals: Proposals,
    weights: npt.NDArray[np.float64],
    quotas: npt.NDArray[np.float64],
    constant: float,
    count: int,
    out: Ints,
    boards: tuple[Board, Board],
) -> tuple[Ints, Floats]:
    """The merged items, best first, and the rank that each source gave them.

    weights: of each source in the fused score, sum of weight / (constant + rank); equal scores go
    by item number. quotas: share of the `count` places that a source's best are sure of; together
    at most 1. out: items that may not be in the list; ranks are counted without them. boards:
    empty ones of this thread, and empty again afterwards.
    Returns int32 [n] and float32 [n, sources], ranks from 1, nan where a source did not propose.
    """
    fused, wanted = boards
    sure = (quotas * count).astype(np.int32)
    items: Ints
    ranks: Floats
    items, ranks = _merge(
        proposals.items, proposals.counts, weights, sure, constant, count, out,
        fused.scores, wanted.scores, fused.touched,
    )  # fmt: skip
    return items, ranks


@njit(cache=True, nogil=True)
def _merge(proposed, counts, weights, sure, constant, count, out, fused, wanted, touched):  # type: ignore[no-untyped-def]
    sources = len(counts)
    for item in out:
        wanted[item] = -1
    found = 0
    for source in range(sources):
        rank = 0
        for place in range(counts[source]):
            item = proposed[source, place]
            if wanted[item] < 0:
                continue
            rank += 1
            if fused[item] == 0:
                touched[found] = item
                found += 1
            # a weight of 0 still lists what it proposes, last
            fused[item] += max(weights[source], 1e-6) / (constant + rank)
            if rank <= sure[source]:
                wanted[item] = 1
    for item in out:
        wanted[item] = 0
    items = _chosen(fused, wanted, touched, found, count)
    ranks = np.full((len(items), sources), np.nan, np.float32)
    for place in range(found):
        fused[touched[place]] = 0
        wanted[touched[place]] = 0
    for item in out:
        wanted[item] = -1
    for row in range(len(items)):
        wanted[items[row]] = row + 1
    for source in range(sources):
        rank = 0
        for place in range(counts[source]):
            row = wanted[proposed[source, place]]
            if row >= 0:
                rank += 1
            if row > 0:
                ranks[int(row) - 1, source] = rank
    for item in items:
        wanted[item] = 0
    for item in out:
        wanted[item] = 0
    return items, ranks


@njit(cache=True, nogil=True)
def _chosen(fused, wanted, touched, found, count):  # type: ignore[no-untyped-def]
    """The best `count` with all that are sure of a place among them, best first."""
    sure = 0
    for place in range(found):
        sure += wanted[touched[place]] > 0
    rest, _ = top(fused, touched, found, count)
    if sure == 0 or found <= count:
        return rest
    chosen = np.empty(count, np.int32)
    size = 0
    for place in range(found):
        if wanted[touched[place]] > 0 and size < count:
            chosen[size] = touched[place]
            size += 1
    for item in rest:
        if size < count and wanted[item] == 0:
            chosen[size] = item
            size += 1
    ordered, _ = top(fused, chosen, size, size)
    return ordered
