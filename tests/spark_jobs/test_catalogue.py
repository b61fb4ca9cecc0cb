"""The catalogue as a log: what a reader finds at any moment is what the messages known then say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.known import LATENESS_MS, counted_at
from spark_jobs.catalogue import _DELAY_MS as DELAY
from spark_jobs.catalogue import Change, Message, Said, changes
from tests.spark_jobs.told import PROPERTY


def product(
    known: int, time: int, category: str | None = None, brand: str | None = None
) -> Message:
    return Message(known, time, Said(category, brand))


def price(known: int, time: int, value: float | None, available: bool | None = None) -> Message:
    return Message(known, time, Said(price=value, available=available))


def test_a_field_keeps_its_last_value_and_what_changes_nothing_gives_no_row() -> None:
    sent = [
        product(1, 1, category="x.y", brand="b"),
        price(1, 1, 5.0),  # known with the one before: one row
        product(3, 3, brand="c"),
        price(4, 4, None, available=False),
        price(5, 5, 5.0),
    ]
    assert list(changes(sent)) == [
        Change(1, 1 + DELAY, Said("x.y", "b", 5.0)),
        Change(3, 3 + DELAY, Said("x.y", "c", 5.0)),
        Change(4, 4 + DELAY, Said("x.y", "c", 5.0, False)),
    ]


def test_a_late_message_changes_what_held_after_it_from_when_it_is_known() -> None:
    sent = [
        product(10, 10, category="x", brand="b"),
        price(20, 20, 5.0),
        product(30, 30, brand="b"),  # changes nothing yet
        product(99, 15, brand="late"),
    ]
    assert list(changes(sent))[2:] == [
        Change(15, 99 + DELAY, Said("x", "late")),
        Change(20, 99 + DELAY, Said("x", "late", 5.0)),
        Change(30, 99 + DELAY, Said("x", "b", 5.0)),
    ]


def test_what_is_said_of_the_future_is_known_before_it_holds() -> None:
    sent = [price(10, 50, 5.0), price(20, 50, 6.0), price(30, 50, 7.0)]
    assert list(changes(sent)) == [
        Change(50, 10 + DELAY, Said(price=5.0)),
        Change(50, 20 + DELAY, Said(price=6.0)),
        Change(50, 30 + DELAY, Said(price=7.0)),
    ]


SAID = st.builds(
    Said, *(st.none() | st.sampled_from(values) for values in ("xy", "bc", (1.0, 2.0), (True, False)))
)  # fmt: skip


@st.composite
def sent(draw: st.DrawFn) -> list[Message]:
    """In the order in which they became known; late, at one time, some before their time."""
    known, found = 20, []
    for _ in range(draw(st.integers(0, 12))):
        known += draw(st.integers(0, 5))
        time = known - draw(st.sampled_from([0, 0, 0, 1, 3, 20, -2]))
        found.append(Message(known, time, draw(SAID)))
    return found


def _found(rows: list[Change], moment: int, until: int) -> Said | None:
    """What a reader finds at a moment of the rows created by `until`."""
    seen = [row for row in rows if row.time <= moment and row.created <= until]
    return max(seen, key=lambda row: (row.time, row.created)).holds if seen else None


def _said(messages: list[Message], moment: int, until: int) -> Said | None:
    holds = None
    known = [message for message in messages if message.time <= moment and message.known <= until]
    for message in sorted(known, key=lambda message: message.time):
        holds = (holds or Said()).then(message.said)
    return holds


@PROPERTY
@given(sent())
def test_at_any_moment_the_rows_tell_what_was_known(messages: list[Message]) -> None:
    rows = list(changes(messages))
    assert len({(row.time, row.created) for row in rows}) == len(rows), "none can tell which counts"
    moments = (
        {row.time for row in rows} | {m.time for m in messages} | {m.time - 1 for m in messages}
    )
    for until in {message.known for message in messages}:
        for moment in moments:
            assert _found(rows, moment, until + DELAY) == _said(messages, moment, until)


@PROPERTY
@given(sent(), st.data())
def test_what_comes_later_never_changes_a_row(messages: list[Message], data: st.DataObject) -> None:
    now = data.draw(st.integers(0, 90))
    before = list(changes(m for m in messages if m.known < now))
    assert list(changes(messages))[: len(before)] == before


@PROPERTY
@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_a_fact_counts_between_when_it_happened_and_when_it_was_known(
    time: int, known: int
) -> None:
    at = counted_at(time, known)
    assert known - LATENESS_MS <= at <= known
    assert at == time or not known - LATENESS_MS <= time <= known
