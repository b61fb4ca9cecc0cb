"""What a session's features mean: one pure fold over its events.

The state of a session is the set of its newest `KEPT_EVENTS` events, in order of time. Merging
two such sets and keeping the newest is associative, commutative and idempotent, so late, repeated
and out-of-order events end in the same state whatever order they came in. Every feature is a
function of that state and of the moment it is asked for; the consumer, the batch job and the
orchestrator all call the functions below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from contracts.events import INTEREST_TYPES, SESSION_IDLE, Event, EventType

KEPT_EVENTS = 100
"""Events of a session that are remembered; features count at most these."""
IDLE_MS = SESSION_IDLE // timedelta(milliseconds=1)
_FOLDED_TYPES = frozenset(int(kind) for kind in EventType if kind is not EventType.heartbeat)


class SessionEvent(NamedTuple):
    """What is remembered of an event. The order of the fields is the order of events."""

    time: int  # milliseconds since 1970 UTC
    key: int  # 64 bits of the event id
    type: int  # EventType
    item: str  # "" where the event has none
    position: int  # -1 where unknown
    device: int  # Device
    source: int  # TrafficSource
    # its place in its Kafka partition, where all events of a session lie: the order in which they
    # became known; -1: not from Kafka
    offset: int = -1

    @classmethod
    def of(cls, event: Event, offset: int = -1) -> SessionEvent:
        place = event.position
        # once an event: a named tuple's own constructor and int() of an enum cost twice as much
        return tuple.__new__(cls, (
            event.time, event.key, event.type.real, event.item_id or "", -1 if place is None else place,
            event.device.real, event.source.real, offset,
        ))  # fmt: skip


STATE = tuple(f"event_{name}" for name in SessionEvent._fields)
"""The lists of a state in the view `session`."""


@dataclass(frozen=True)
class SessionState:
    """At most `KEPT_EVENTS` events, oldest first, each event id once."""

    events: tuple[SessionEvent, ...] = ()

    @property
    def version(self) -> int:
        """Names this state among all that its session ever had: the offset of the newest message
        that changed it; -1: none. Whatever changes a state puts an event into it that lies behind
        all others in the partition, and a repeat, also after a crash, changes nothing."""
        return max((event.offset for event in self.events), default=-1)

    def columns(self) -> dict[str, Any]:
        """The state as features of the view `session`: the lists `event_*`, and its version."""
        lists = map(list, zip(*self.events, strict=True)) if self.events else ([] for _ in STATE)
        columns: dict[str, Any] = dict(zip(STATE, lists, strict=True))
        return {"session_version": max(columns["event_offset"], default=-1), **columns}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> SessionState:
        """Inverse of `columns`; ValueError when the lists differ in length. States that were stored
        before events had offsets have none."""
        lists = [columns[name] for name in STATE]
        if not len(columns["event_offset"]):
            lists[STATE.index("event_offset")] = [-1] * len(columns["event_time"])
        return cls(tuple(SessionEvent(*row) for row in zip(*lists, strict=True)))


def fold(state: SessionState, events: Iterable[Event | SessionEvent]) -> SessionState:
    """The state after `events`, in whatever order and however often they come.

    Heartbeats leave no trace: a page left open must not push out what was clicked. Of two events
    with the same id the later one counts: so what was pushed out by newer events never has to come
    back, and the time of the newest event never falls. Of the same event told twice, the place
    where it was told first.
    """
    merged = {event.key: event for event in state.events}
    for event in events:
        new = SessionEvent.of(event) if isinstance(event, Event) else event
        if new.type in _FOLDED_TYPES:
            known = merged.get(new.key)
            merged[new.key] = new if known is None else _counting(known, new)
    return SessionState(tuple(sorted(merged.values())[-KEPT_EVENTS:]))


def _counting(known: SessionEvent, new: SessionEvent) -> SessionEvent:
    """Which of two events with the same id counts."""
    if known[:-1] == new[:-1]:
        return min(known, new)
    return max(known, new)


def visit(state: SessionState, moment: int) -> tuple[SessionEvent, ...]:
    """The events of the visit that is under way at `moment` (milliseconds), oldest first.

    Events after the moment are left out; a pause of over 30 minutes, also between the last event
    and the moment, ends a visit.
    """
    known: Sequence[SessionEvent] = state.events
    if known and known[-1].time > moment:
        known = [event for event in known if event.time <= moment]
    start, end = len(known), moment
    while start and end - known[start - 1].time <= IDLE_MS:
        start -= 1
        end = known[start].time
    return tuple(known[start:])


def items_of(events: Sequence[SessionEvent]) -> list[str]:
    """Items the visitor showed interest in, oldest first, the same item in a row once."""
    return _visited([event.type for event in events], [event.item for event in events])


def _visited(types: Sequence[int], items: Sequence[str]) -> list[str]:
    visited: list[str] = []
    last = None
    for kind, item in zip(types, items, strict=True):
        if kind in _INTEREST and item != last:
            visited.append(item)
            last = item
    return visited


def session_features(events: Sequence[SessionEvent]) -> dict[str, float]:
    """Values of the views `session` and `context` for the events of a visit (see `visit`).

    Times in seconds. An empty visit gives counts of 0 and no (nan) times.
    """
    if not events:
        return dict(_NO_FEATURES)
    # columns once: the consumer does this for every event
    milliseconds, _, types, items, positions, devices, sources, _ = zip(*events, strict=True)
    visited = _visited(types, items)
    times = [time / 1000 for time in milliseconds]
    gaps = [after - before for before, after in pairwise(times)]
    return {
        "session_events": len(events),
        "session_items": len(visited),
        "session_distinct_items": len(set(visited)),
        "session_searches": types.count(_SEARCH),
        "session_carts": types.count(_ADD_TO_CART),
        "session_purchases": types.count(_CHECKOUT),
        "session_duration": times[-1] - times[0],
        "session_mean_gap": sum(gaps) / len(gaps) if gaps else _NAN,
        "session_last_gap": gaps[-1] if gaps else _NAN,
        "session_last_position": _last_position(positions),
        "device": _last_known(devices),
        "traffic_source": _last_known(sources),
    }


_NAN = float("nan")
# plain numbers: members of an enum compare slowly
_SEARCH, _ADD_TO_CART, _CHECKOUT = (
    int(EventType.search), int(EventType.add_to_cart), int(EventType.checkout),
)  # fmt: skip
_INTEREST = frozenset(int(kind) for kind in INTEREST_TYPES)


def _last_position(positions: Sequence[int]) -> float:
    for position in reversed(positions):
        if position >= 0:
            return position
    return _NAN


def _last_known(codes: Sequence[int]) -> int:
    for code in reversed(codes):
        if code:
            return code
    return 0


_NO_FEATURES = {
    **dict.fromkeys(
        ("session_events", "session_items", "session_distinct_items"), 0
    ),
    **dict.fromkeys(("session_searches", "session_carts", "session_purchases"), 0),
    **dict.fromkeys(("session_duration", "session_mean_gap", "session_last_gap"), _NAN),
    "session_last_position": _NAN,
    "device": 0,
    "traffic_source": 0,
}  # fmt: skip
