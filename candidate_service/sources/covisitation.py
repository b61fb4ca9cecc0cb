"""What is clicked after this item: sequential rules.

Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018: sequential
rules (SR) with weight 1/gap. Added here: recency weight, the reverse direction at a smaller weight,
shrinkage of rare rows, and the sum over the visit's items with step decay.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from candidate_service.history import History
from candidate_service.source import (
    Answer,
    Ints,
    Parameters,
    Source,
    Sparse,
    Visit,
    recency,
)

Reals = npt.NDArray[np.float64]


class Covisitation(Source):
    """score = sum over the visit's items of step_weight ^ steps * weight(item -> candidate).

    Arrays: `indptr` int64 [items + 1], `neighbours` int32 [pairs], `weights` float32 [pairs]; an
    item's neighbours are ascending. `step_weight` depends on the shop: .3 to .7.
    """

    name = "covisitation"
    defaults: ClassVar[Parameters] = {
        "weight": 1.0,
        "quota": 0.3,
        "step_weight": 0.6,
        "newest": 20,  # distinct items of the visit that are looked up: older ones weigh nothing
        "neighbours": 300,
        "gap": 10,
        "backward": 0.5,
        "half_life_days": 40.0,
        "floor": 0.05,
        "shrink": 1.0,
    }

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        items = len(history.ids)
        before, after, weight = _pairs(history, parameters)
        row, column, total = _summed(before, after, weight, items)
        sums = np.bincount(row, total, minlength=items)
        total /= sums[row] + parameters["shrink"]
        kept = _strongest(row, column, total, items, int(parameters["neighbours"]))
        return {
            "indptr": _indptr(row[kept], items),
            "neighbours": column[kept].astype(np.int32),
            "weights": total[kept].astype(np.float32),
        }

    def ask(self, visit: Visit) -> Answer:
        newest = int(self.parameters["newest"])
        rows, steps = visit.items[:newest], visit.steps[:newest]
        indptr = self.arrays["indptr"]
        begin = indptr[rows]
        length = indptr[rows + 1] - begin
        if not len(visit):
            return Sparse(rows, steps)
        place = np.arange(length.sum()) + np.repeat(begin - (length.cumsum() - length), length)
        decay = np.repeat(self.parameters["step_weight"] ** steps, length)
        items, group = np.unique(self.arrays["neighbours"][place], return_inverse=True)
        scores = np.bincount(group, decay * self.arrays["weights"][place])
        return Sparse(items, scores)


def _pairs(history: History, parameters: Parameters) -> tuple[Ints, Ints, Reals]:
    """Item, other item of the same visit, weight: for every gap, forward and backward."""
    rows = history.without_repeats()
    visit, item = history.visit[rows], history.item[rows]
    weight = recency(history.age_days()[rows], parameters)
    found: list[tuple[Ints, Ints, Reals]] = []
    for gap in range(1, min(int(parameters["gap"]), len(rows) - 1) + 1):
        first = np.flatnonzero((visit[gap:] == visit[:-gap]) & (item[gap:] != item[:-gap]))
        value = weight[first + gap] / gap
        found.append((item[first], item[first + gap], value))
        if parameters["backward"]:
            found.append((item[first + gap], item[first], value * parameters["backward"]))
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
    before, after, weights = zip(*found, strict=True)
    return np.concatenate(before), np.concatenate(after), np.concatenate(weights)


def _summed(
    before: Ints, after: Ints, weight: Reals, items: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Reals]:
    """Each pair once, ascending, with the sum of its weights."""
    pair = before.astype(np.int64) * items + after
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    total = np.add.reduceat(weight[order], first) if len(first) else np.empty(0)
    row, column = np.divmod(pair[first], max(items, 1))
    return row, column, total


def _strongest(
    row: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    total: Reals,
    items: int,
    count: int,
) -> npt.NDArray[np.intp]:
    """The places of each row's `count` heaviest pairs, in their order; equal ones by item."""
    order = np.lexsort((column, -total, row))
    rank = np.arange(len(row)) - _indptr(row, items)[row[order]]
    return np.sort(order[rank < count])


def _indptr(row: npt.NDArray[np.int64], items: int) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.bincount(row, minlength=items).cumsum())).astype(np.int64)
