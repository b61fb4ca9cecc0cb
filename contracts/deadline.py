"""A time budget that travels with a request, so that the sum is bounded and not each part."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """`remaining()` seconds until the answer is due, on the monotonic clock; never negative."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self, at_most: float | None = None) -> float:
        """Seconds left, `at_most` that many where a stage has a budget of its own."""
        left = max(0.0, self._end - self._clock())
        return left if at_most is None else min(left, at_most)

    def expired(self) -> bool:
        return self.remaining() == 0.0
