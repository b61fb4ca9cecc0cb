"""What is clicked next after this item: a Markov chain of the first order.

The baseline "MC" of Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms",
UMUAI 2018, with shrinkage of rare rows and weights that fall with age.
"""

from __future__ import annotations

from typing import ClassVar

from candidate_service.history import History
from candidate_service.source import Parameters
from candidate_service.tables import Pairs, TableSource, over_row_sums, pairs_within


class Transition(TableSource):
    """weight = how often next / (how often anything next + shrink)."""

    name = "transition"
    defaults: ClassVar[Parameters] = {**TableSource.defaults, "weight": 0.1, "shrink": 1.0}

    @classmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        return over_row_sums(next_clicks(history, parameters), history.items, parameters["shrink"])


def next_clicks(history: History, parameters: Parameters) -> Pairs:
    """How often each item came directly after each, older clicks counting less."""
    return pairs_within(history, 1, lambda gap: 1.0, parameters["age_days"])  # noqa: ARG005
