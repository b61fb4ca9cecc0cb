"""The predictions that could have been made, and what was clicked or viewed next: training rows.

A visit's events that bear the same time are one moment: at none of them could the others be known.
A prediction is asked for when the last of them has become known. By then the visitor may have gone
on already, or an earlier event may not have come yet: the first gives no row, the second is not in
what had been visited.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise, takewhile
from typing import NamedTuple

from pyspark.sql import DataFrame

from contracts.events import CLICK_TYPES, EventType
from contracts.session import SessionEvent, SessionState, fold, items_of, visit
from contracts.tables import Offline
from spark_jobs.walk import Row, Told, over_sessions


class Moment(NamedTuple):
    """What a session did at one time (milliseconds), heartbeats aside, by when all of it was known,
    and the visit that it belongs to."""

    time: int
    known: int
    visit: str
    told: tuple[Told, ...]


def queries(events_clean: DataFrame) -> DataFrame:
    """`Offline.queries`, at most one row for each visit and moment.

    A visit that so far named no item gives a row too, with nothing visited: such a visitor is
    also asked for.
    """
    return over_sessions(events_clean, ("time", "key"), query_rows, Offline.queries)


def query_rows(session: str, told: Iterable[Told]) -> Iterator[Row]:
    """Rows of `Offline.queries` of one session. told: each event once, in the order of time.

    Of an event id that was told twice only what counts in the end is looked at, and only from when
    that was known.
    """
    sofar = _SoFar()
    all_moments = list(moments(told))
    for place, (now, following) in enumerate(pairwise(all_moments), 1):
        sofar.add(now.told)
        asked = max(now.time, now.known)
        if now.visit != following.visit or following.time <= asked:
            continue
        visited = items_of(visit(sofar.at(asked), asked))
        label = _next_item([each.event for each in following.told], visited)
        if label is not None:
            yield {
                "visit": now.visit,
                "session_id": session,
                "moment": asked,
                "visited": visited,
                "label": label,
                "label_time": following.time,
                "kind": label_kind(label, all_moments[place:], now.visit),
            }


def label_kind(label: str, following: Sequence[Moment], visit: str) -> str:
    """What became of the label in its visit: one of `LABEL_KINDS`."""
    kinds = {
        each.event.type
        for moment in takewhile(lambda moment: moment.visit == visit, following)
        for each in moment.told
        if each.event.item == label
    }
    if EventType.checkout in kinds:
        return "purchase"
    return "cart" if EventType.add_to_cart in kinds else "click"


def moments(told: Iterable[Told]) -> Iterator[Moment]:
    """The moments of a session. told: in the order of time."""
    acted = (each for each in told if each.event.type != EventType.heartbeat)
    for time, group in groupby(acted, key=lambda each: each.event.time):
        together = tuple(group)
        known = max(each.known for each in together)
        yield Moment(time, known, together[-1].visit, together)


class _SoFar:
    """The state of a session as it was known, in memory for the state and what comes late."""

    def __init__(self) -> None:
        self._state = SessionState()
        self._coming: list[Told] = []  # a heap: what becomes known first is first

    def add(self, told: Iterable[Told]) -> None:
        for each in told:
            heapq.heappush(self._coming, each)

    def at(self, moment: int) -> SessionState:
        """Of what was added, all that was known at `moment`, which never goes back."""
        known = []
        while self._coming and self._coming[0].known <= moment:
            known.append(heapq.heappop(self._coming).event)
        self._state = fold(self._state, known)
        return self._state


def _next_item(events: Sequence[SessionEvent], visited: Sequence[str]) -> str | None:
    """The first item clicked or viewed among the events that is not the one last visited."""
    last = visited[-1] if visited else None
    clicked = (event.item for event in events if event.type in CLICK_TYPES)
    return next((item for item in clicked if item != last), None)
