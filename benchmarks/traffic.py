"""Events as a shop's visitors send them: many visits at once, some events late, some twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from contracts.events import Event, EventType, parse_event

MEAN_VISIT = 5
"""Events of a visit, on average; lengths are geometric."""
OPEN_VISITS = 2000
LATE_SHARE, REPEATED_SHARE = 0.01, 0.01
LATE_MS = 120_000
ITEMS = 50_000
_TYPES = (
    [EventType.item_view] * 12
    + [EventType.click] * 4
    + [EventType.page_view] * 3
    + [EventType.search, EventType.add_to_cart, EventType.checkout, EventType.heartbeat]
)
_DEVICES = ("desktop", "mobile", "mobile", "tablet", "app")
_SOURCES = ("direct", "search", "social", "email")


@dataclass(frozen=True)
class Visitor:
    session: str
    device: str
    source: str


def shop_events(count: int, end_ms: int, seed: int = 7, step_ms: float = 0.05) -> Iterator[Event]:
    """`count` events in the order in which they arrive, the last one at about `end_ms`.

    One every `step_ms` milliseconds of the shop's time. `LATE_SHARE` of them happened up to two
    minutes before they arrive; `REPEATED_SHARE` are sent a second time, soon after.
    """
    draw = random.Random(seed)  # noqa: S311  # traffic, no secret
    start = end_ms - int(count * step_ms)
    visits = [_visitor(draw, number) for number in range(OPEN_VISITS)]
    begun = OPEN_VISITS
    recent: list[Event] = []
    for number in range(count):
        if recent and draw.random() < REPEATED_SHARE:
            yield draw.choice(recent)
            continue
        place = draw.randrange(OPEN_VISITS)
        event = _event(draw, visits[place], start + int(number * step_ms))
        recent = [*recent[-20:], event]
        yield event
        if draw.random() < 1 / MEAN_VISIT:
            visits[place] = _visitor(draw, begun)
            begun += 1


def _visitor(draw: random.Random, number: int) -> Visitor:
    return Visitor(f"visit-{number:08d}", draw.choice(_DEVICES), draw.choice(_SOURCES))


def _event(draw: random.Random, visitor: Visitor, now: int) -> Event:
    kind = draw.choice(_TYPES)
    late = draw.randrange(LATE_MS) if draw.random() < LATE_SHARE else 0
    fields = {
        "session_id": visitor.session,
        "type": kind.name,
        "time": now - late,
        "device": visitor.device,
        "source": visitor.source,
    }
    if kind is EventType.search:
        fields["query"] = "red shoes"
    elif kind not in (EventType.heartbeat, EventType.page_view):
        fields["item_id"] = str(draw.randrange(ITEMS))
        fields["position"] = draw.randrange(40)
    return parse_event(fields, now)
