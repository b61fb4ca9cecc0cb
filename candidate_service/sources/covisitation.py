"""What is visited together with this item, before or after: symmetric co-visitation.

Sarwar, Karypis, Konstan and Riedl, "Item-based Collaborative Filtering Recommendation Algorithms",
WWW 2001 (cosine of items), over visits as in the association rules (AR) of Ludewig and Jannach, UMUAI
2018; near clicks count more than far ones, old visits less.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from candidate_service.history import History
from candidate_service.source import Parameters
from candidate_service.tables import Pairs, TableSource, visited_near


class Covisitation(TableSource):
    """weight = sum over occurrences of exp(-(gap - 1) / reach), over the root of both items' counts."""

    name = "covisitation"
    defaults: ClassVar[Parameters] = {
        **TableSource.defaults,
        "weight": 0.7,
        "gap": 20.0,
        "reach": 3.0,
    }

    @classmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        found = visited_near(history, parameters)
        seen = np.exp(-history.age_days() / parameters["age_days"])
        counts = np.sqrt(np.bincount(history.item, seen, minlength=history.items))
        return found.with_values(
            found.value / np.maximum(counts[found.row] * counts[found.column], 1e-9)
        )
