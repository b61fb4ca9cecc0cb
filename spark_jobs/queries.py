"""The predictions that could have been made, and what was clicked or viewed next: training rows.

A visit's events that bear the same time are one moment: at none of them could the others be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from pyspark.sql import DataFrame

from contracts.events import CLICK_TYPES
from contracts.session import SessionEvent, items_of, visit
from contracts.tables import Offline
from spark_jobs.walk import Moment, Row, over_sessions


def queries(events_clean: DataFrame) -> DataFrame:
    """`Offline.queries`, at most one row for each visit and moment.

    A visit that so far named no item gives a row too, with nothing visited: such a visitor is
    also asked for.
    """
    return over_sessions(events_clean, query_rows, Offline.queries)


def query_rows(moments: Iterator[Moment]) -> Iterable[Row]:
    """Rows of `Offline.queries` for the moments of one session."""
    for now, following in pairwise(moments):
        visited = items_of(visit(now.state, now.time))
        label = _next_item(following.events, visited) if now.visit == following.visit else None
        if label is not None:
            yield {
                "visit": now.visit,
                "session_id": now.session,
                "moment": now.time,
                "visited": visited,
                "label": label,
                "label_time": following.time,
            }


def _next_item(events: Sequence[SessionEvent], visited: Sequence[str]) -> str | None:
    """The first item clicked or viewed among the events that is not the one last visited."""
    last = visited[-1] if visited else None
    clicked = (event.item for event in events if event.type in CLICK_TYPES)
    return next((item for item in clicked if item != last), None)
