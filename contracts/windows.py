"""How the time of a shop's history is divided: what is learned from, what is labelled, what is tested."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

WEEK_MS = timedelta(days=7) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class Windows:
    """Milliseconds since 1970. Events before `label_start` make the candidates that the ranker
    learns to order; its labels lie in [label_start, test_start); it is tested on
    [test_start, end) with candidates from everything before `test_start`; what is released has
    candidates from everything before `end`."""

    label_start: int
    test_start: int
    end: int

    @property
    def cutoffs(self) -> tuple[int, int, int]:
        """The three moments that a candidate index is built for."""
        return self.label_start, self.test_start, self.end

    @classmethod
    def of(cls, first: int, last: int) -> Windows:
        """Windows of a week each at the end of the history from `first` to `last` (both included);
        of a quarter of the history where that is shorter than four weeks."""
        end = last + 1
        step = min(WEEK_MS, (end - first) // 4)
        return cls(end - 2 * step, end - step, end)
