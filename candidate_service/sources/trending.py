"""What is popular lately within the categories of the visit.

The recently popular items of Ludewig and Jannach, UMUAI 2018, by category: over all items it says
little that `popular` does not, within a category it is among the stronger sources of a shop.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from candidate_service.board import Board
from candidate_service.history import History
from candidate_service.source import Answer, Parameters, Silent, Source, Visit
from candidate_service.tables import STEP_WEIGHTS, Pairs, add_rows, table


class Trending(Source):
    """score = sum over the visit's items of step_weight ^ steps * the candidate's share of the
    recent clicks in that item's category. Silent where no category is known."""

    name = "trending"
    defaults: ClassVar[Parameters] = {
        "weight": 0.1,
        "quota": 0.0,
        "age_days": 7.0,
        "neighbours": 200.0,
        "step_weight": 0.6,
        "newest": 20.0,
    }
    asked: ClassVar[dict[str, tuple[float, ...]]] = {"step_weight": STEP_WEIGHTS}

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        if history.catalogue is None or not (history.catalogue.category >= 0).any():
            return {}
        category = history.catalogue.category
        recent = np.exp(-history.age_days() / parameters["age_days"]) * history.click
        clicks = np.bincount(history.item, recent, minlength=history.items)
        known = np.flatnonzero((category >= 0) & (clicks > 0))
        sums = np.bincount(category[known], clicks[known], minlength=category.max() + 1)
        share = Pairs(
            category[known], known.astype(np.int32), clicks[known] / sums[category[known]]
        )
        return {
            "category": category,
            **table(share, int(category.max()) + 1, int(parameters["neighbours"])),
        }

    def ask(self, visit: Visit, board: Board) -> Answer:
        if not self.arrays or not len(visit):
            return Silent()
        newest = int(self.parameters["newest"])
        rows = self.arrays["category"][visit.items[:newest]]
        factors = (self.parameters["step_weight"] ** visit.steps[:newest]).astype(np.float32)
        known = rows >= 0
        return add_rows(self.arrays, rows[known], factors[known], board)
