"""When a fact counts: one rule for every window over events, in batch and in streams.

What is known late must not change what was said before: a row computed for the end of a window is
never corrected. So an event that comes late counts when it becomes known.
"""

from __future__ import annotations

from datetime import timedelta

LATENESS = timedelta(minutes=5)
"""An event known within this time after it happened counts when it happened."""
LATENESS_MS = LATENESS // timedelta(milliseconds=1)


def counted_at(time: int, known: int) -> int:
    """The time at which a fact counts in windows, of when it happened and when it became known.

    All in milliseconds. It lies in [known - LATENESS_MS, known]: a window is complete once
    everything is seen that was known until `LATENESS` after its end.
    """
    return min(max(time, known - LATENESS_MS), known)
