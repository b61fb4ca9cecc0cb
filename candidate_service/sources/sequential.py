"""What comes after this item within some clicks: sequential rules.

Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", UMUAI 2018: sequential
rules (SR) with weight 1/gap. Added here: weights that fall with age, shrinkage of rare rows, and the
sum over the visit's items.
"""

from __future__ import annotations

from typing import ClassVar

from candidate_service.history import History
from candidate_service.source import Parameters
from candidate_service.tables import Pairs, TableSource, over_row_sums, pairs_within


class Sequential(TableSource):
    """weight = sum over occurrences of 1/gap, over the row's sum."""

    name = "sequential"
    defaults: ClassVar[Parameters] = {
        **TableSource.defaults,
        "weight": 0.3,
        "gap": 10.0,
        "shrink": 1.0,
    }

    @classmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        found = pairs_within(
            history, int(parameters["gap"]), lambda gap: 1 / gap, parameters["age_days"]
        )
        return over_row_sums(found, history.items, parameters["shrink"])
