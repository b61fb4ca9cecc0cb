"""Groups of test queries whose figures differ: what a list is good and bad at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.history import Query

Flags = npt.NDArray[np.bool_]
LENGTHS = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5-9": (5, 9), "10+": (10, 1 << 30)}
HEAD = 0.2
"""Items with the most clicks that together are the head: this share of all items."""


def segments(
    queries: Sequence[Query], clicks: dict[str, int], earlier: frozenset[str]
) -> dict[str, Flags]:
    """By name, which queries belong. clicks: of each item in the train part; earlier: ids of sessions
    that had a visit before."""
    lengths = np.array([len(query.visited) for query in queries])
    repeat = np.array([query.label in query.visited for query in queries])
    counts = np.array([clicks.get(query.label, 0) for query in queries])
    border = np.quantile(list(clicks.values()) or [0], 1 - HEAD)
    returning = np.array([query.session_id in earlier for query in queries])
    return {
        **{
            f"length {name}": (lengths >= low) & (lengths <= high)
            for name, (low, high) in LENGTHS.items()
        },
        "repeat item": repeat,
        "item new to the session": ~repeat,
        "head item": counts > border,
        "tail item": (counts > 0) & (counts <= border),
        "item without a click before": counts == 0,
        "first prefix of a session": lengths == 1,
        "returning session": returning,
    }
