"""What a candidate source gives, and the interface that local and remote candidates share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

SOURCES: tuple[str, ...] = (
    "session", "transition", "sequential", "covisitation", "two_hop", "knn", "vector", "content",
    "trending", "popular",
)  # fmt: skip
"""Candidate sources, in the order of their columns. Each is a class of `candidate_service.sources`."""
SHARED: tuple[str, ...] = ("sequential", "covisitation", "two_hop", "knn", "trending")
"""Sources whose scores mean most beside the best one of the same visit."""
OF_ANSWER: Mapping[str, str] = {
    "fused": "Score of the candidate in the merge of all sources.",
    **{
        f"{source}_share": f"Its score in the source {source} over the best one of the visit."
        for source in SHARED
    },
    "vector_gap": "Its score in the source vector minus the best one of the visit.",
}
"""Signals that are made of the scores of all that a visit was answered with."""
SIGNAL_MEANINGS: Mapping[str, str] = {
    **OF_ANSWER,
    "knn_sum": "Sum of the similarities of the neighbour sessions that hold the candidate.",
    "knn_rate": "knn_sum over (all past sessions that hold it + 5).",
    "knn_sessions": "How many neighbour sessions hold it.",
    "knn_best": "The largest similarity of one of them.",
    "knn_two_shared": "How many of them share two items with the visit, or more.",
    "knn_newest": "Days from the newest of them to the index's cut-off.",
    "knn_next": "Sum of the similarities of those in which it comes directly after the last item.",
}
"""What sources say of a candidate beside their score, by name, with what it means."""
SIGNALS: tuple[str, ...] = tuple(SIGNAL_MEANINGS)
"""Their columns, in order: those of the answer, then the `signals` of the sources' classes."""


@dataclass(frozen=True)
class CandidateSet:
    """Items without repeats, best first by the merge, as each source saw them.

    items: n item ids.
    scores: float32 [n, len(SOURCES)], higher is better, also of a source that did not propose it;
        nan where the source cannot tell.
    ranks: float32 [n, len(SOURCES)], from 1; nan where the source did not propose it.
    signals: float32 [n, len(SIGNALS)], nan where the source cannot tell.
    """

    items: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.float32]
    signals: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = (len(self.items), len(SOURCES))
        if self.scores.shape != shape or self.ranks.shape != shape:
            raise ValueError(
                f"scores {self.scores.shape}, ranks {self.ranks.shape}: expected {shape}"
            )
        told = (len(self.items), len(SIGNALS))
        if self.signals.shape != told:
            raise ValueError(f"signals {self.signals.shape}: expected {told}")

    def __len__(self) -> int:
        return len(self.items)

    def sources_of(self, index: int) -> list[str]:
        """Names of the sources that proposed the candidate, best rank first."""
        ranks = self.ranks[index]
        order = np.argsort(ranks, kind="stable")
        return [SOURCES[column] for column in order if not np.isnan(ranks[column])]

    def take(self, rows: Sequence[int] | npt.NDArray[np.intp]) -> CandidateSet:
        """The candidates of these rows, in their order."""
        index = np.asarray(rows, dtype=np.intp)
        items = tuple(self.items[row] for row in index)
        return CandidateSet(items, self.scores[index], self.ranks[index], self.signals[index])

    @classmethod
    def empty(cls) -> CandidateSet:
        none = np.empty((0, len(SOURCES)), dtype=np.float32)
        return cls((), none, none, unknown_signals(0))


def with_items(found: CandidateSet, items: Sequence[str]) -> CandidateSet:
    """The candidates and, behind them, those of `items` that no source proposed."""
    have = frozenset(found.items)
    more = tuple(item for item in dict.fromkeys(items) if item not in have)
    if not more:
        return found
    unknown = np.full((len(more), len(SOURCES)), np.nan, dtype=np.float32)
    return CandidateSet(
        found.items + more,
        np.concatenate([found.scores, unknown]),
        np.concatenate([found.ranks, unknown]),
        np.concatenate([found.signals, unknown_signals(len(more))]),
    )


def unknown_signals(count: int) -> npt.NDArray[np.float32]:
    """Signals of candidates of which no source says any."""
    return np.full((count, len(SIGNALS)), np.nan, dtype=np.float32)


class Candidates(Protocol):
    """A candidate index in this process."""

    @property
    def version(self) -> str: ...

    def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str] = ()
    ) -> CandidateSet:
        """At most `count` candidates for a visit.

        items: what was visited, oldest first (`contracts.session.items_of`); unknown ones are
        passed over, none at all gives popular items. The visit's own items, the last one too, may
        come back unless `exclude` names them. Never raises for any text.
        """
        ...
