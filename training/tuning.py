"""What depends on a shop, learned on its train part: how sources are asked, how they are merged.

Two coordinate searches over queries whose answer is known: each source's own parameters
(`Source.asked`), then the weights of the merge. A value other than the one before is taken only
where the gain is larger than its standard error over the queries: a small shop keeps the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from candidate_service.index import CandidateIndex
from candidate_service.merge import ASKED
from candidate_service.sources import source_classes
from contracts.candidates import SOURCES
from contracts.rules import DEFAULT
from training.history import Query

Doubles = npt.NDArray[np.float64]
Report = Callable[[int, int], None]
Chosen = dict[str, dict[str, float]]

QUERIES = 6000
DEPTH = 100
"""Places that count: of a source, what the merge can take from it."""
ROUNDS = 2
STEPS = (0.25, 0.5, 2.0, 4.0)
"""What a weight of the merge is multiplied by."""
FLOOR = 0.02
"""Smallest weight, from which a weight of 0 also rises."""


def tune(
    index: CandidateIndex,
    queries: Sequence[Query],
    count: int,
    *,
    current: bool = False,
    most: int = QUERIES,
    report: Report = lambda done, of: None,  # noqa: ARG005
) -> Chosen:
    """Parameters that differ from the index's own, for `CandidateIndex.asked_with`.

    queries: asked after the index's cut-off; count: candidates that are kept; current: whether the
    current item may be proposed. Deterministic.
    """
    known = [query for query in queries if index.number(query.label) is not None]
    chosen: Chosen = {}
    if not known:
        return chosen
    rows = np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)
    asked = [known[row] for row in rows]  # from the first to the newest
    trials = _Trials(asked, current)
    for done, name in enumerate(SOURCES):
        report(done, len(SOURCES) + 1)
        if found := _source(index, name, trials):
            chosen[name] = found
    tuned = index.asked_with(chosen)
    report(len(SOURCES), len(SOURCES) + 1)
    for name, values in _merge(tuned, trials, count).items():
        chosen[name] = {**chosen.get(name, {}), **values}
    return chosen


class _Trials:
    def __init__(self, queries: Sequence[Query], current: bool) -> None:
        self.queries, self.current = queries, current

    def out(self, query: Query) -> Sequence[str]:
        return () if self.current else DEFAULT.left_out(query.visited, ())


def _source(index: CandidateIndex, name: str, trials: _Trials) -> dict[str, float]:
    """A source's own parameters, one after another."""
    chosen: dict[str, float] = {}
    asked = source_classes()[name].asked
    if not asked:
        return chosen
    best = _gains(index, name, trials)
    if not best.any():
        return chosen
    for parameter, values in asked.items():
        now = chosen.get(parameter, index.manifest.parameters[name][parameter])
        for value in values:
            if value == now:
                continue
            gains = _gains(index.asked_with({name: {**chosen, parameter: value}}), name, trials)
            if _better(gains, best):
                best, chosen = gains, {**chosen, parameter: value}
    return chosen


def _gains(index: CandidateIndex, name: str, trials: _Trials) -> Doubles:
    """DCG of each query's label in the source's own list: high places and being there at all."""
    gains = np.zeros(len(trials.queries))
    for row, query in enumerate(trials.queries):
        found, _ = index.propose(name, query.visited, DEPTH, trials.out(query))
        if query.label in found:
            gains[row] = 1 / np.log2(found.index(query.label) + 2)
    return gains


def _better(gains: Doubles, best: Doubles) -> bool:
    difference = gains - best
    error = difference.std() / np.sqrt(len(difference))
    return bool(difference.mean() > error)


def _merge(index: CandidateIndex, trials: _Trials, count: int) -> Chosen:
    """Weights and constant that bring labels into the list, and high up: recall + DCG of the first 20."""
    ranks = [_proposed(index, query, count, trials) for query in trials.queries]
    flat, starts, labels = _flat(ranks)
    parameters = index.manifest.parameters
    weights = np.array([parameters[name]["weight"] for name in SOURCES])
    constant = parameters["merge"]["constant"]

    def gains(weights: Doubles, constant: float) -> Doubles:
        found: Doubles = _fused_gains(flat, starts, labels, weights, constant, count)
        return found

    best = gains(weights, constant)
    for _ in range(ROUNDS):
        for value in ASKED["constant"]:
            tried = gains(weights, value)
            if _better(tried, best):
                best, constant = tried, value
        for place in range(len(SOURCES)):
            start = max(weights[place], FLOOR)
            for step in STEPS:
                other = weights.copy()
                other[place] = start * step
                tried = gains(other, constant)
                if _better(tried, best):
                    best, weights = tried, other
    found: Chosen = {name: {"weight": float(weights[place])} for place, name in enumerate(SOURCES)}
    return found | {"merge": {"constant": float(constant)}}


def _proposed(
    index: CandidateIndex, query: Query, count: int, trials: _Trials
) -> tuple[npt.NDArray[np.float32], int]:
    """Ranks [n, sources] of all that any source proposes, nan where it does not; the label's row, -1
    where nobody does."""
    found = index.proposals(query.visited, 2 * count, trials.out(query))
    filled = np.arange(found.items.shape[1]) < found.counts[:, None]
    source, place = np.nonzero(filled)
    items, row = np.unique(found.items[filled], return_inverse=True)
    ranks = np.full((len(items), len(SOURCES)), np.nan, dtype=np.float32)
    ranks[row, source] = place + 1
    label = np.flatnonzero(items == index.number(query.label))
    return ranks, int(label[0]) if len(label) else -1


def _flat(ranks: Sequence[tuple[npt.NDArray[np.float32], int]]) -> tuple[Any, Any, Any]:
    starts = np.concatenate(([0], np.cumsum([len(of) for of, _ in ranks]))).astype(np.int64)
    return np.concatenate([of for of, _ in ranks]), starts, np.array([label for _, label in ranks])


@njit(cache=True, nogil=True)
def _fused_gains(ranks, starts, labels, weights, constant, count):  # type: ignore[no-untyped-def]
    gains = np.zeros(len(labels))
    for query in range(len(labels)):
        if labels[query] < 0:
            continue
        begin, end = starts[query], starts[query + 1]
        own, above = 0.0, 0
        label = begin + labels[query]
        for source in range(len(weights)):
            if not np.isnan(ranks[label, source]):
                own += weights[source] / (constant + ranks[label, source])
        for row in range(begin, end):
            score = 0.0
            for source in range(len(weights)):
                if not np.isnan(ranks[row, source]):
                    score += weights[source] / (constant + ranks[row, source])
            above += score > own
        if above < count:
            gains[query] = 1.0
        if above < 20:
            gains[query] += 1 / np.log2(above + 2)
    return gains
