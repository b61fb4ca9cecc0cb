"""Item-to-item tables: for every item the items that go with it, as flat arrays; and the sources
that are such a table, asked with the visit's items.

A table is `indptr` int64 [rows + 1], `neighbours` int32 [pairs], `weights` float32 [pairs].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from candidate_service.board import Board, Floats, Ints
from candidate_service.history import History
from candidate_service.source import Answer, OnBoard, Parameters, Source, Visit

Longs = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
STEP_WEIGHTS = (0.2, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9)
"""Values of `step_weight` that are tried on a shop."""


class Pairs(NamedTuple):
    """(row, column, value), any number of times each."""

    row: Ints
    column: Ints
    value: Reals

    def turned(self) -> Pairs:
        return Pairs(self.column, self.row, self.value)

    def with_values(self, value: Reals) -> Pairs:
        return Pairs(self.row, self.column, value)


class TableSource(Source):
    """score = sum over the visit's items of step_weight ^ steps * weight(item -> candidate)."""

    defaults: ClassVar[Parameters] = {
        "quota": 0.0,
        "step_weight": 0.6,
        "newest": 20.0,  # distinct items of the visit that are looked up: older ones weigh nothing
        "neighbours": 400.0,
        "age_days": 60.0,
    }
    asked: ClassVar[dict[str, tuple[float, ...]]] = {"step_weight": STEP_WEIGHTS}

    @classmethod
    @abstractmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        """Each pair once."""

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        return table(cls.pairs(history, parameters), history.items, int(parameters["neighbours"]))

    def ask(self, visit: Visit, board: Board) -> Answer:
        newest = int(self.parameters["newest"])
        rows, steps = visit.items[:newest], visit.steps[:newest]
        factors = (self.parameters["step_weight"] ** steps).astype(np.float32)
        return add_rows(self.arrays, rows, factors, board)


def add_rows(arrays: Any, rows: Ints, factors: Floats, board: Board) -> Answer:
    """The weighted sum of a table's rows."""
    board.count = _add_rows(
        arrays["indptr"], arrays["neighbours"], arrays["weights"], rows, factors,
        board.scores, board.touched,
    )  # fmt: skip
    return OnBoard(board)


@njit(cache=True, nogil=True)
def _add_rows(indptr, neighbours, weights, rows, factors, scores, touched):  # type: ignore[no-untyped-def]
    count = 0
    for place in range(len(rows)):
        factor = factors[place]
        for pair in range(indptr[rows[place]], indptr[rows[place] + 1]):
            item = neighbours[pair]
            added = factor * weights[pair]
            if not added > 0:  # float32 ends: it would count as untouched for ever
                continue
            if scores[item] == 0:
                touched[count] = item
                count += 1
            scores[item] += added
    return count


def pairs_within(history: History, gap: int, by_gap: Callable[[int], float], days: float) -> Pairs:
    """An item and one that comes up to `gap` events after it in the visit, each occurrence with the
    weight of its gap times exp(-age / days). An item with itself too: visitors look again."""
    visit, item = history.visit, history.item
    weight = np.exp(-history.age_days() / days)
    found = [_at_gap(visit, item, weight * by_gap(step), step) for step in range(1, gap + 1)]
    row, column, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return summed(Pairs(row, column, value), history.items)


def visited_near(history: History, parameters: Parameters) -> Pairs:
    """Pairs of clicks up to `gap` events apart, exp(-(gap - 1) / `reach`) each, times
    exp(-age / `age_days`), added to its transpose: an item near itself counts twice."""
    reach = parameters["reach"]
    after = pairs_within(
        history, int(parameters["gap"]), lambda gap: math.exp((1 - gap) / reach),
        parameters["age_days"],
    )  # fmt: skip
    return both(after, after.turned(), history.items)


def _at_gap(visit: Ints, item: Ints, weight: Reals, gap: int) -> Pairs:
    first = np.flatnonzero(visit[gap:] == visit[:-gap])
    return Pairs(item[first], item[first + gap], weight[first + gap])


def summed(pairs: Pairs, items: int) -> Pairs:
    """Each pair once, ascending, with the sum of its values."""
    key = pairs.row.astype(np.int64) * items + pairs.column
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(pairs.value[order], first) if len(first) else np.empty(0)
    row, column = np.divmod(key[first], max(items, 1))
    return Pairs(row.astype(np.int32), column.astype(np.int32), total)


def both(first: Pairs, second: Pairs, items: int) -> Pairs:
    """The sum of two tables."""
    joined = Pairs(
        np.concatenate((first.row, second.row)),
        np.concatenate((first.column, second.column)),
        np.concatenate((first.value, second.value)),
    )
    return summed(joined, items)


def over_row_sums(pairs: Pairs, items: int, shrink: float) -> Pairs:
    """Each value over (the sum of its row + shrink)."""
    sums = np.bincount(pairs.row, pairs.value, minlength=items)
    return pairs.with_values(pairs.value / (sums[pairs.row] + shrink))


def table(pairs: Pairs, rows: int, count: int) -> dict[str, npt.NDArray[Any]]:
    """The `count` heaviest of each row, heaviest first; equal ones by item."""
    positive = pairs.value > 0
    row, column, value = pairs.row[positive], pairs.column[positive], pairs.value[positive]
    order = np.lexsort((column, -value, row))
    starts = indptr(row, rows)
    rank = np.arange(len(row)) - starts[row[order]]
    kept = order[rank < count]
    return {
        "indptr": indptr(row[kept], rows),
        "neighbours": column[kept].astype(np.int32),
        "weights": value[kept].astype(np.float32),
    }


def indptr(row: Ints, rows: int) -> Longs:
    return np.concatenate(([0], np.bincount(row, minlength=rows).cumsum())).astype(np.int64)
