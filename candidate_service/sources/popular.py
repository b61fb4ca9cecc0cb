"""The most clicked items, recent clicks counting more: also the answer to an unknown visitor.

The baseline of Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N
Recommendation Tasks", RecSys 2010, with the recency weight that sets it right for shops that change.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from candidate_service.board import Board, Floats, Ints
from candidate_service.history import History
from candidate_service.source import (
    Answer,
    Found,
    Parameters,
    Source,
    Visit,
    recency,
)


class Popular(Source):
    """score = share of all clicks, each weighted by its age. Every item has one."""

    name = "popular"
    defaults: ClassVar[Parameters] = {
        "weight": 0.05,
        "quota": 0.05,
        "half_life_days": 7.0,
        "floor": 0.01,
    }

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        weight = recency(history.age_days(), parameters) * history.click
        counts = np.bincount(history.item, weight, minlength=len(history.ids))
        share = (counts / max(counts.sum(), 1e-12)).astype(np.float32)
        return {"share": share, "order": np.argsort(-share, kind="stable").astype(np.int32)}

    def ask(self, visit: Visit, board: Board) -> Answer:  # the same for everybody
        return _Ranked(self.arrays["order"], self.arrays["share"])


class _Ranked(Answer):
    def __init__(self, order: Ints, share: Floats) -> None:
        self._order, self._share = order, share

    def top(self, count: int) -> Found:
        items = self._order[: max(count, 0)]
        return items, self._share[items]

    def of(self, items: Ints) -> Floats:
        return self._share[items]
