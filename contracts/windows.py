"""How the time of a shop's history is divided: what is learned from, what is labelled, what is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

WEEK_MS = timedelta(days=7) // timedelta(milliseconds=1)
WANTED_QUERIES = 48_000
"""Queries that the ranker learns from, where a shop has as many."""
LEAST_PAST = 0.3
"""A label window's candidates come from at least this share of what is before the test window."""
MOST_WINDOWS = 8
"""Label windows that are looked at: each takes an index and an encoder of its own."""
ENOUGH = 0.1
"""Share of the wanted queries that so many windows should hold; else they are made longer."""
STRAYS, FEW_STRAYS = 0.001, 0.01
"""Shares of the events at an end of a history that may be strays; the larger one of at most five."""

Window = tuple[int, int]
"""[start, end) in milliseconds since 1970."""


@dataclass(frozen=True)
class Windows:
    """labels: windows that the ranker learns from, the newest first; each with candidates from
    everything before its start. The ranker is tested on [test_start, end) with candidates from
    everything before `test_start`; what is released has candidates from everything before `end`."""

    labels: tuple[Window, ...]
    test_start: int
    end: int

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """The moments that a candidate index is built for, ascending."""
        return (*sorted(start for start, _ in self.labels), self.test_start, self.end)

    @classmethod
    def of(
        cls, first: int, last: int, queries: Callable[[int, int], int], wanted: int = WANTED_QUERIES
    ) -> Windows:
        """Windows of a week each at the end of the history from `first` to `last` (both included);
        of a quarter of the history where that is shorter than four weeks. queries: how many there
        are in a window."""
        end = last + 1
        step = min(WEEK_MS, (end - first) // 4)
        return cls(label_windows(first, end - step, step, queries, wanted), end - step, end)


def label_windows(
    first: int, end: int, length: int, queries: Callable[[int, int], int], wanted: int
) -> tuple[Window, ...]:
    """Windows of `length` backwards from `end`, the newest first: as many as it takes to have
    `wanted` queries, and none, but the newest, whose past is under `LEAST_PAST` of the whole. Those
    without a query are left out, but where all are. Where `MOST_WINDOWS` hold little, they are twice
    as long, or four times."""
    while True:
        looked_at = _backwards(first, end, length, queries, wanted)
        little = sum(count for _, count in looked_at) < ENOUGH * wanted
        if len(looked_at) < MOST_WINDOWS or not little:
            found = tuple(window for window, count in looked_at if count)
            return found or (looked_at[0][0],)
        length *= 2


def _backwards(
    first: int, end: int, length: int, queries: Callable[[int, int], int], wanted: int
) -> list[tuple[Window, int]]:
    """Windows, and how many queries each holds."""
    found = [((end - length, end), queries(end - length, end))]
    while len(found) < MOST_WINDOWS and sum(count for _, count in found) < wanted:
        stop = found[-1][0][0]
        start = stop - length
        if length <= 0 or start - first < LEAST_PAST * (end - first):
            break
        found.append(((start, stop), queries(start, stop)))
    return found


def bounds(times: npt.NDArray[np.int64]) -> tuple[int, int]:
    """First and last moment of a history of n > 0 events, but for strays: few events at an end that
    are as far from the others as these are long. Of many events the first ones are left out anyway:
    one that came a month late must not stretch windows to where nothing is."""
    ordered = np.sort(times)
    few, many = min(5, int(FEW_STRAYS * len(times))), int(STRAYS * len(times))
    trimmed = max(few, many)
    early, late = ordered[trimmed], ordered[-1 - trimmed]
    near = ordered[(ordered >= early - (late - early)) & (ordered <= late + (late - early))]
    return max(int(near[0]), int(ordered[many])), int(near[-1])
