"""How the time of a shop's history is divided: what is learned from, what is labelled, what is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

WEEK_MS = timedelta(days=7) // timedelta(milliseconds=1)
WANTED_QUERIES = 48_000
"""Queries that the ranker learns from, where a shop has as many."""
LEAST_PAST = 0.3
"""A label window's candidates come from at least this share of what is before the test window."""

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
    `wanted` queries, and none, but the newest, whose past is under `LEAST_PAST` of the whole."""
    found = [(end - length, end)]
    have = queries(*found[0])
    while have < wanted and length > 0:
        stop = found[-1][0]
        start = stop - length
        if start - first < LEAST_PAST * (end - first):
            break
        found.append((start, stop))
        have += queries(start, stop)
    return tuple(found)
