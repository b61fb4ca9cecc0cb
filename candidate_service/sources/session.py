"""The visit's own items: visitors return to what they saw (20 % of next clicks on some shops).

Garg et al., "Sequence and Time Aware Neighborhood for Session-based Recommendations", SIGIR 2019,
weigh items of the session by recency in the same way.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy.typing as npt

from candidate_service.board import Board
from candidate_service.history import History
from candidate_service.source import Answer, Parameters, Source, Sparse, Visit


class Session(Source):
    """score = decay ^ steps since the item was visited last."""

    name = "session"
    defaults: ClassVar[Parameters] = {"weight": 2.0, "quota": 0.1, "decay": 0.8}
    asked: ClassVar[dict[str, tuple[float, ...]]] = {"decay": (0.5, 0.8)}

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        return {}

    def ask(self, visit: Visit, board: Board) -> Answer:
        order = visit.items.argsort()
        return Sparse(visit.items[order], self.parameters["decay"] ** visit.steps[order])
