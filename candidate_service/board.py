"""Where a source adds up its scores: a dense board of one thread, emptied by what was touched.

A dictionary or a sort over what was found costs more than the sums themselves; a board costs one
float an item of the shop, for each source and thread, and nothing a request.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Board:
    """scores: float32 [items], 0 for what was not touched. touched: int32 [items], of which the
    first `count` are the items that were, each once. Kernels fill all three: a touched item has a
    score above 0. Of one thread; an answer on it holds until the next question."""

    def __init__(self, items: int) -> None:
        self.scores = np.zeros(items, dtype=np.float32)
        self.touched = np.empty(items, dtype=np.int32)
        self.count = 0

    def clear(self) -> None:
        clear(self.scores, self.touched, self.count)
        self.count = 0

    def top(self, count: int) -> tuple[Ints, Floats]:
        """The best `count` touched items and their scores, best first, equal ones by number."""
        items: Ints
        scores: Floats
        items, scores = top(self.scores, self.touched, self.count, max(count, 0))
        return items, scores

    def of(self, items: Ints) -> Floats:
        """Scores of any items."""
        return self.scores[items]


@njit(cache=True, nogil=True)
def clear(scores, touched, count):  # type: ignore[no-untyped-def]
    for place in range(count):
        scores[touched[place]] = 0


@njit(cache=True, nogil=True)
def top(scores, touched, count, wanted):  # type: ignore[no-untyped-def]
    """A heap of the best so far, worst on top: few of the touched ever get past its top."""
    size = min(count, wanted)
    items = np.empty(size, np.int32)
    values = np.empty(size, np.float32)
    if size == 0:
        return items, values
    for place in range(size):
        items[place] = touched[place]
        values[place] = scores[touched[place]]
    for start in range(size // 2 - 1, -1, -1):
        _sink(items, values, start, size)
    for place in range(size, count):
        item = touched[place]
        value = scores[item]
        if value > values[0] or (value == values[0] and item < items[0]):
            items[0], values[0] = item, value
            _sink(items, values, 0, size)
    for end in range(size - 1, 0, -1):
        items[0], items[end] = items[end], items[0]
        values[0], values[end] = values[end], values[0]
        _sink(items, values, 0, end)
    return items, values


@njit(cache=True, nogil=True)
def _sink(items, values, start, size):  # type: ignore[no-untyped-def]
    """Let the entry at `start` sink to where those below it are better."""
    parent = start
    while True:
        worst = 2 * parent + 1
        if worst >= size:
            return
        right = worst + 1
        if right < size and (
            values[right] < values[worst]
            or (values[right] == values[worst] and items[right] > items[worst])
        ):
            worst = right
        if values[worst] > values[parent] or (
            values[worst] == values[parent] and items[worst] < items[parent]
        ):
            return
        items[parent], items[worst] = items[worst], items[parent]
        values[parent], values[worst] = values[worst], values[parent]
        parent = worst
