"""What a session tells, in random and by hand: late, repeated, at one time, out of order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from contracts.events import Device, EventType, TrafficSource
from contracts.session import SessionEvent
from spark_jobs.walk import Told

PROPERTY = settings(max_examples=60, deadline=None)
MINUTE = 60_000
VIEW, CLICK, SEARCH = EventType.item_view, EventType.click, EventType.search
CART, BUY, BEAT = EventType.add_to_cart, EventType.checkout, EventType.heartbeat


def told(
    minute: int,
    kind: EventType,
    item: str = "",
    *,
    key: int = 0,
    visit: str = "s",
    known: int | None = None,
    offset: int = -1,
) -> Told:
    """An event, known at once or at the minute `known`."""
    event = SessionEvent(
        minute * MINUTE, key or minute, int(kind), item, -1, int(Device.mobile), int(TrafficSource.email), offset
    )  # fmt: skip
    return Told((minute if known is None else known) * MINUTE, event, visit)


KINDS = st.sampled_from([VIEW, CLICK, SEARCH, CART, BEAT])


@st.composite
def messages(draw: st.DrawFn, most: int = 25) -> list[Told]:
    """A session's messages in the order in which they became known: up to 50 minutes late or a
    little before their time, some the same again, some of an id that is known."""
    sent: list[Told] = []
    known = 60
    for offset in range(draw(st.integers(0, most))):
        known += draw(st.integers(0, 20))
        again = draw(st.integers(0, 4)) if sent else 4
        if again == 0:
            event = draw(st.sampled_from(sent)).event._replace(offset=offset)
            sent.append(Told(known * MINUTE, event))
            continue
        key = draw(st.sampled_from(sent)).event.key if again == 1 else offset + 1
        minute = known - draw(st.sampled_from([0, 0, 1, 5, 50, -2]))
        item = draw(st.sampled_from("abc"))
        sent.append(told(minute, draw(KINDS), item, key=key, known=known, offset=offset))
    return sent
