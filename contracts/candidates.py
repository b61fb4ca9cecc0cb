"""What a candidate source gives, and the interface that local and remote candidates share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

SOURCES: tuple[str, ...] = ("session", "covisitation", "vector", "popular")
"""Candidate sources, in the order of their columns. Each is a class of `candidate_service.sources`."""


@dataclass(frozen=True)
class CandidateSet:
    """Items without repeats, best first by the merge, as each source saw them.

    items: n item ids.
    scores: float32 [n, len(SOURCES)], higher is better, also of a source that did not propose it;
        nan where the source cannot tell.
    ranks: float32 [n, len(SOURCES)], from 1; nan where the source did not propose it.
    """

    items: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = (len(self.items), len(SOURCES))
        if self.scores.shape != shape or self.ranks.shape != shape:
            raise ValueError(
                f"scores {self.scores.shape}, ranks {self.ranks.shape}: expected {shape}"
            )

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
        return CandidateSet(items, self.scores[index], self.ranks[index])

    @classmethod
    def empty(cls) -> CandidateSet:
        none = np.empty((0, len(SOURCES)), dtype=np.float32)
        return cls((), none, none)


class Candidates(Protocol):
    """A candidate index in this process."""

    @property
    def version(self) -> str: ...

    def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str] = ()
    ) -> CandidateSet:
        """At most `count` candidates for a visit.

        items: what was visited, oldest first (`contracts.session.items_of`); unknown ones are
        passed over, none at all gives popular items. Never raises for any text.
        """
        ...
