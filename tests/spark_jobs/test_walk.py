"""Sessions and queries of one complete session, every row written out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Device, EventType, TrafficSource
from contracts.session import KEPT_EVENTS, SessionEvent, SessionState, fold, items_of, visit
from contracts.tables import OFFLINE_COLUMNS, Offline
from spark_jobs.queries import query_rows
from spark_jobs.sessions import session_rows
from spark_jobs.walk import Moment, arrow_schema, moments

MINUTE = 60_000
VIEW, CLICK, SEARCH = EventType.item_view, EventType.click, EventType.search
CART, BUY, BEAT = EventType.add_to_cart, EventType.checkout, EventType.heartbeat

Step = tuple[str, SessionEvent]


def step(minute: int, kind: EventType, item: str = "", key: int = 0, visit: str = "s") -> Step:
    event = SessionEvent(
        minute * MINUTE, key or minute, int(kind), item, -1, int(Device.mobile), int(TrafficSource.email)
    )  # fmt: skip
    return visit, event


def session() -> Iterator[Moment]:
    return moments(
        "s",
        [
            step(1, SEARCH),
            step(2, VIEW, "a"),
            step(3, VIEW, "a"),  # the item last visited: no label
            step(4, BEAT),  # leaves no trace: no moment
            step(5, CLICK, "b"),
            step(6, CART, "c"),  # no label, but visited
            step(7, CLICK, "d", key=71),  # three events at one time: the first is the label,
            step(7, CLICK, "e", key=72),  # and none of them was known when it was asked for
            step(7, SEARCH, key=73),
            step(8, VIEW, "c"),
            step(99, VIEW, "d", visit="s~2"),  # after 91 minutes another visit: no label
            step(100, VIEW, "d", key=1001, visit="s~2"),
            step(100, VIEW, "f", key=1002, visit="s~2"),  # the first that is not the last visited
        ],
    )


def test_every_query_of_a_session() -> None:
    rows = [
        (row["visit"], row["moment"] // MINUTE, row["visited"], row["label"], row["label_time"] // MINUTE)
        for row in query_rows(session())
    ]  # fmt: skip
    assert rows == [
        ("s", 1, [], "a", 2),
        ("s", 3, ["a"], "b", 5),
        ("s", 6, ["a", "b", "c"], "d", 7),
        ("s", 7, ["a", "b", "c", "d", "e"], "c", 8),
        ("s~2", 99, ["d"], "f", 100),
    ]


def test_every_session_row_has_the_state_and_features_after_its_moment() -> None:
    rows = list(session_rows(session()))
    assert [row["event_timestamp"].timestamp() // 60 for row in rows] == [
        1,
        2,
        3,
        5,
        6,
        7,
        8,
        99,
        100,
    ]
    at_seven = rows[5]
    assert at_seven["session_id"] == "s"
    assert at_seven["event_timestamp"] == datetime(1970, 1, 1, 0, 7, tzinfo=UTC)
    assert at_seven["created_timestamp"] == at_seven["event_timestamp"], "or a query misses it"
    assert at_seven["event_item"] == ["", "a", "a", "b", "c", "d", "e", ""]
    assert at_seven["session_events"] == 8
    assert at_seven["session_distinct_items"] == 5
    assert at_seven["session_duration"] == 6 * 60
    assert at_seven["device"] == Device.mobile
    second_visit = rows[7]
    assert second_visit["session_events"] == 1, "features are the visit's"
    assert len(second_visit["event_item"]) == 10, "the state is the session's"


def test_rows_have_exactly_the_declared_columns() -> None:
    assert set(next(iter(session_rows(session())))) == set(OFFLINE_COLUMNS[Offline.session])
    assert set(next(iter(query_rows(session())))) == set(OFFLINE_COLUMNS[Offline.queries])


def test_visited_is_what_the_session_state_keeps() -> None:
    long = [step(minute, VIEW, f"i{minute}") for minute in range(1, KEPT_EVENTS + 20)]
    last = list(query_rows(moments("s", long)))[-1]
    assert len(last["visited"]) == KEPT_EVENTS
    assert last["visited"][-1] == f"i{KEPT_EVENTS + 18}"


def test_times_become_utc_timestamps() -> None:
    kinds = {
        field.name: str(field.type) for field in arrow_schema(OFFLINE_COLUMNS[Offline.session])
    }
    assert kinds["event_timestamp"] == "timestamp[us, tz=UTC]"
    assert kinds["event_item"] == "list<item: string>"
    assert kinds["session_events"] == "float"


events = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from([VIEW, CLICK, CART, BEAT]), st.sampled_from("abc")),
    max_size=25,
)  # fmt: skip


@given(events)
def test_a_query_never_knows_what_came_at_or_after_its_label(
    given_events: list[tuple[int, EventType, str]],
) -> None:
    """Beside the plain reading of the contract: all events up to the moment, folded at once."""
    ordered = sorted(given_events, key=lambda event: event[0])
    steps = [step(minute, kind, item, key=n + 1) for n, (minute, kind, item) in enumerate(ordered)]
    everything = [event for _, event in steps]
    for row in query_rows(moments("s", steps)):
        assert row["moment"] < row["label_time"]
        known = fold(SessionState(), [event for event in everything if event.time <= row["moment"]])
        assert row["visited"] == items_of(visit(known, row["moment"]))
        assert row["label"] not in row["visited"][-1:]
        between = [
            e for e in everything if row["moment"] < e.time < row["label_time"] and e.type != BEAT
        ]
        assert not between
