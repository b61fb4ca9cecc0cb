"""Sessions: each row is a version of the online row, as the consumer wrote it then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Device, Event, EventType, TrafficSource
from contracts.session import KEPT_EVENTS, SessionEvent, SessionState
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, OFFLINE_COLUMNS, Offline
from orchestrator.consumer.online import VIEWS, rows
from orchestrator.consumer.ports import States
from orchestrator.consumer.sessions import Sessions
from spark_jobs.sessions import session_rows
from spark_jobs.walk import Told, arrow_schema
from tests.spark_jobs.told import BEAT, CART, CLICK, MINUTE, PROPERTY, SEARCH, VIEW, messages, told


def minutes(row: dict[str, Any]) -> tuple[float, float]:
    """Event and created time."""
    return row[EVENT_TIMESTAMP].timestamp() / 60, row[CREATED_TIMESTAMP].timestamp() / 60


def test_every_version_of_a_session() -> None:
    found = list(
        session_rows(
            "s",
            [
                told(1, SEARCH, offset=10),
                told(2, VIEW, "a", offset=11),
                told(2, VIEW, "a", offset=12, known=3),  # the same again: nothing changes
                told(4, BEAT, offset=13),  # leaves no trace
                told(5, CLICK, "b", offset=14),
                told(3, CART, "a", offset=20, known=6),  # late
                told(40, VIEW, "c", offset=21),  # another visit
            ],
        )
    )
    assert [minutes(row) for row in found] == [(1, 1), (2, 2), (5, 5), (5, 6), (40, 40)]
    assert [row["session_version"] for row in found] == [10, 11, 14, 20, 21]
    late = found[3]
    assert late["session_id"] == "s"
    assert late[EVENT_TIMESTAMP] == datetime(1970, 1, 1, 0, 5, tzinfo=UTC)
    assert late["event_item"] == ["", "a", "a", "b"]
    assert late["event_offset"] == [10, 11, 20, 14]
    assert (late["session_events"], late["session_carts"], late["session_duration"]) == (4, 1, 240)
    assert found[4]["session_events"] == 1, "features are the visit's"
    assert len(found[4]["event_item"]) == 5, "the state is the session's"


def test_a_session_keeps_its_newest_events_and_what_is_older_makes_no_version() -> None:
    full = [told(minute, VIEW, "a", offset=minute) for minute in range(10, 10 + KEPT_EVENTS)]
    too_late = told(5, CLICK, "b", known=200, offset=200)
    found = list(session_rows("s", [*full, too_late]))
    assert len(found) == KEPT_EVENTS
    assert len(found[-1]["event_item"]) == KEPT_EVENTS


class Online:
    """What the consumer writes online: (event time, values by name), each as text."""

    def __init__(self) -> None:
        self.state = SessionState()
        self.written: list[tuple[int, str]] = []

    def read(self, sessions: Sequence[str]) -> list[SessionState]:
        return [self.state for _ in sessions]

    def write(self, states: Mapping[str, SessionState]) -> None:
        self.state = states["s"]
        _, [time], columns = rows(states)
        values = {name: column[0] for view in VIEWS for name, column in columns[view].items()}
        self.written.append((time, repr(sorted(values.items()))))


def event_of(told: Told) -> Event:
    event = told.event
    return Event.model_construct(
        event_id=str(event.key), session_id="s", type=EventType(event.type), time=event.time,
        item_id=event.item or None, position=None, device=Device(event.device),
        source=TrafficSource(event.source),
    )  # fmt: skip


@PROPERTY
@given(messages())
def test_the_table_is_what_the_consumer_writes_message_by_message(sent: list[Told]) -> None:
    """Each message in a batch of its own; when one makes no row, the consumer writes nothing."""
    online = Online()
    consumer = Sessions(cast("States", online))
    told, expected = [], []
    for known, event, _ in sent:
        message = event_of(Told(known, event))
        if changed := consumer.fold([(message, event.offset)]):
            online.write(changed)
        told.append(Told(known, SessionEvent.of(message, event.offset)))
        expected += [(known, *row) for row in online.written]
        online.written.clear()
    found = [
        (round(created * MINUTE), round(event * MINUTE), repr(sorted(_values(row).items())))
        for row in session_rows("s", told)
        for event, created in [minutes(row)]
    ]
    assert found == expected


def _values(row: dict[str, Any]) -> dict[str, Any]:
    names = set(row) - {"session_id", EVENT_TIMESTAMP, CREATED_TIMESTAMP}
    return {name: row[name] for name in sorted(names)}


@PROPERTY
@given(messages(), st.data())
def test_a_version_names_one_state_and_messages_that_come_again_make_none(
    sent: list[Told], data: st.DataObject
) -> None:
    found = list(session_rows("s", sent))
    versions = [row["session_version"] for row in found]
    assert versions == sorted(set(versions))
    cut = data.draw(st.integers(0, len(sent)))
    crashed = [*sent[:cut], *sent[max(0, cut - 5) :]]
    assert repr(list(session_rows("s", _stamped(crashed)))) == repr(found)


def _stamped(sent: Sequence[Told]) -> list[Told]:
    """As the lake gives them back: sorted by place, the same message next to itself."""
    return sorted(sent, key=lambda each: each.event.offset)


@PROPERTY
@given(messages(), st.data())
def test_what_comes_later_never_changes_a_row(sent: list[Told], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(sent)))
    before = list(session_rows("s", sent[:cut]))
    assert repr(list(session_rows("s", sent))[: len(before)]) == repr(before)


def test_rows_have_exactly_the_declared_columns() -> None:
    [row] = session_rows("s", [told(1, VIEW, "a")])
    assert set(row) == set(OFFLINE_COLUMNS[Offline.session])


def test_times_become_utc_timestamps() -> None:
    kinds = {
        field.name: str(field.type) for field in arrow_schema(OFFLINE_COLUMNS[Offline.session])
    }
    assert kinds["event_timestamp"] == "timestamp[us, tz=UTC]"
    assert kinds["event_item"] == "list<item: string>"
    assert kinds["session_events"] == "float"
