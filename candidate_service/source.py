"""What a candidate source is: built from history, asked with a visit.

A source lives in `candidate_service/sources/<name>.py` and is named in `contracts.candidates.SOURCES`;
nothing else knows of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from candidate_service.board import Board, Floats, Ints
from candidate_service.history import History

Arrays = Mapping[str, npt.NDArray[Any]]
Parameters = Mapping[str, float]
Found = tuple[Ints, Floats]
"""Item numbers without repeats and their scores, best first; equal scores by item id."""


@dataclass(frozen=True)
class Visit:
    """What was visited, as a source sees it: known items, each once, latest first.

    items: int32 [n] item numbers. steps: float64 [n], visited items that came after its latest visit.
    sequence: int32 [m], the newest known items as they were visited, oldest first, repeats too.
    """

    items: Ints
    steps: npt.NDArray[np.float64]
    sequence: Ints

    def __len__(self) -> int:
        return len(self.items)


class Answer(ABC):
    """What a source says to one visit."""

    @abstractmethod
    def top(self, count: int) -> Found:
        """The source's best items, at most `count`."""

    @abstractmethod
    def of(self, items: Ints) -> Floats:
        """The source's scores of any items; nan where it cannot tell."""

    def signals_of(self, items: Ints) -> Floats:
        """float32 [n, signals of the source], nan where it cannot tell."""
        return np.empty((len(items), 0), dtype=np.float32)


class Source(ABC):
    """A candidate source over its arrays; immutable, so that threads may share it.

    defaults: its parameters. Every source has `weight`, its share in the rank fusion, and
    `quota`, the share of an answer's places that its best items are sure of. asked: those of them
    that only a question needs, by name, with the values that `training.tuning` tries on a shop: no
    array depends on them. signals: what it says of a candidate beside its score.
    """

    name: ClassVar[str]
    defaults: ClassVar[Parameters]
    asked: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    signals: ClassVar[tuple[str, ...]] = ()

    def __init__(self, arrays: Arrays, parameters: Parameters, items: int) -> None:
        self.arrays, self.parameters, self.items = arrays, parameters, items

    @classmethod
    @abstractmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        """The arrays that the source needs, by name. Only `history` is known to it."""

    @abstractmethod
    def ask(self, visit: Visit, board: Board) -> Answer:
        """board: empty, this thread's and this source's own until its next question."""


class Sparse(Answer):
    """An answer that names few items: `items` ascending, their `scores`, 0 for all others."""

    def __init__(self, items: Ints, scores: npt.NDArray[Any]) -> None:
        self._items, self._scores = items, scores.astype(np.float32)

    def top(self, count: int) -> Found:
        return best(self._items, self._scores, count)

    def of(self, items: Ints) -> Floats:
        if not len(self._items):
            return np.zeros(len(items), dtype=np.float32)
        place = np.searchsorted(self._items, items)
        place[place == len(self._items)] = 0
        return np.where(self._items[place] == items, self._scores[place], np.float32(0))


class OnBoard(Answer):
    """An answer that a kernel left on a board: 0 for what it did not touch."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def top(self, count: int) -> Found:
        return self.board.top(count)

    def of(self, items: Ints) -> Floats:
        return self.board.of(items)


class Silent(Answer):
    """The answer of a source that knows nothing of the visit. signals: how many it has."""

    def __init__(self, signals: int = 0) -> None:
        self._signals = signals

    def top(self, count: int) -> Found:  # noqa: ARG002  # an Answer's shape
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)

    def of(self, items: Ints) -> Floats:
        return np.full(len(items), np.nan, dtype=np.float32)

    def signals_of(self, items: Ints) -> Floats:
        return np.full((len(items), self._signals), np.nan, dtype=np.float32)


class Muted(Source):
    """Stands for a source that is left out: it answers nothing, whatever the visit."""

    def __init__(self, source: type[Source]) -> None:
        super().__init__({}, source.defaults, 0)
        self._answer = Silent(len(source.signals))

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:  # noqa: ARG003
        return {}

    def ask(self, visit: Visit, board: Board) -> Answer:  # noqa: ARG002
        return self._answer


def best(items: Ints, scores: Floats, count: int) -> Found:
    """The `count` highest scores of ascending items, best first, equal ones by item."""
    if 0 < count < len(items):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows = np.flatnonzero(scores >= least)
        items, scores = items[rows], scores[rows]
    order = np.argsort(-scores, kind="stable")[: max(count, 0)]
    return items[order], scores[order]


def among(items: Ints, ascending: Ints) -> npt.NDArray[np.bool_]:
    """Which items are in a not empty ascending array. np.isin takes ten times as long."""
    place = np.searchsorted(ascending, items)
    place[place == len(ascending)] = 0
    found: npt.NDArray[np.bool_] = ascending[place] == items
    return found


def recency(age_days: npt.NDArray[np.float64], parameters: Parameters) -> npt.NDArray[np.float64]:
    """Weight of an event by its age: halves every `half_life_days`, plus `floor` for good."""
    return np.exp2(-age_days / parameters["half_life_days"]) + parameters["floor"]
