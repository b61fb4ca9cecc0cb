"""Queries of one complete session, every row written out; and beside a plain reading of the rule."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import Any

from hypothesis import given

from contracts.events import CLICK_TYPES, EventType
from contracts.session import KEPT_EVENTS, SessionState, fold, items_of, visit
from contracts.tables import OFFLINE_COLUMNS, Offline
from spark_jobs.queries import query_rows
from spark_jobs.walk import Told
from tests.spark_jobs.told import BEAT, CART, CLICK, MINUTE, PROPERTY, SEARCH, VIEW, messages, told


def asked(session: Iterable[Told]) -> list[tuple[str, int, list[str], str, int]]:
    return [
        (row["visit"], row["moment"] // MINUTE, row["visited"], row["label"], row["label_time"] // MINUTE)
        for row in query_rows("s", session)
    ]  # fmt: skip


def test_every_query_of_a_session() -> None:
    session = [
        told(1, SEARCH),
        told(2, VIEW, "a"),
        told(3, VIEW, "a"),  # the item last visited: no label
        told(4, BEAT),  # leaves no trace: no moment
        told(5, CLICK, "b"),
        told(6, CART, "c"),  # no label, but visited
        told(7, CLICK, "d", key=71),  # three events at one time: the first is the label,
        told(7, CLICK, "e", key=72),  # and none of them was known when it was asked for
        told(7, SEARCH, key=73),
        told(8, VIEW, "c"),
        told(99, VIEW, "d", visit="s~2"),  # after 91 minutes another visit: no label
        told(100, VIEW, "d", key=1001, visit="s~2"),
        told(100, VIEW, "f", key=1002, visit="s~2"),  # the first that is not the last visited
    ]
    assert asked(session) == [
        ("s", 1, [], "a", 2),
        ("s", 3, ["a"], "b", 5),
        ("s", 6, ["a", "b", "c"], "d", 7),
        ("s", 7, ["a", "b", "c", "d", "e"], "c", 8),
        ("s~2", 99, ["d"], "f", 100),
    ]


def test_a_query_is_asked_when_its_last_event_was_known_and_knows_nothing_that_came_later() -> None:
    session = [
        told(1, VIEW, "a"),
        told(2, VIEW, "b", known=4),  # known only after the next click: never asked
        told(3, CLICK, "c"),  # what was known then: a and c
        told(5, CLICK, "d", known=6),  # all of it
        told(7, CLICK, "e"),
        told(8, VIEW, "f", key=81, known=9),  # two at one time: asked when both are known
        told(8, VIEW, "g", key=82, known=10),
        told(11, VIEW, "h"),
    ]
    assert asked(session) == [
        ("s", 1, ["a"], "b", 2),
        ("s", 3, ["a", "c"], "d", 5),
        ("s", 6, ["a", "b", "c", "d"], "e", 7),
        ("s", 7, ["a", "b", "c", "d", "e"], "f", 8),
        ("s", 10, ["a", "b", "c", "d", "e", "f", "g"], "h", 11),
    ]


def test_a_sender_whose_clock_is_ahead_is_asked_for_at_its_own_time() -> None:
    session = [told(5, VIEW, "a", known=3), told(6, CLICK, "b", known=4)]
    assert asked(session) == [("s", 5, ["a"], "b", 6)]


def test_rows_have_exactly_the_declared_columns() -> None:
    [row] = query_rows("s", [told(1, VIEW, "a"), told(2, CLICK, "b")])
    assert set(row) == set(OFFLINE_COLUMNS[Offline.queries])


def test_visited_is_what_the_session_state_keeps() -> None:
    long = [told(minute, VIEW, f"i{minute}") for minute in range(1, KEPT_EVENTS + 20)]
    last = asked(long)[-1]
    assert len(last[2]) == KEPT_EVENTS
    assert last[2][-1] == f"i{KEPT_EVENTS + 18}"


@PROPERTY
@given(messages())
def test_queries_are_a_plain_reading_of_the_rule(sent: list[Told]) -> None:
    session = _in_the_end(sent)
    assert list(query_rows("s", session)) == list(_plainly(session))


def _in_the_end(sent: list[Told]) -> list[Told]:
    """Each event id once, as it counts in the end, in the order of time."""
    known = {each.event: each.known for each in reversed(sent)}
    acted: list[Told] = []
    for _, same in groupby(sorted(known, key=lambda e: e.key), key=lambda e: e.key):
        best = max(same, key=lambda e: (e[:-1], -e.offset))
        acted.append(Told(known[best], best, "s"))
    return sorted(acted, key=lambda each: each.event)


def _kind(acted: list[Told], clicked: int, label: str) -> str:
    """What became of the label in the rest of the session, which is one visit."""
    visited = {e.event.type for e in acted if e.event.item == label and e.event.time >= clicked}
    if EventType.checkout in visited:
        return "purchase"
    return "cart" if EventType.add_to_cart in visited else "click"


def _plainly(session: list[Told]) -> Iterable[dict[str, Any]]:
    acted = [each for each in session if each.event.type != BEAT]
    times = sorted({each.event.time for each in acted})
    for time, following in pairwise(times):
        moment = max(max(e.known, time) for e in acted if e.event.time == time)
        if following <= moment:
            continue
        known = [e.event for e in acted if e.known <= moment and e.event.time <= moment]
        visited = items_of(visit(fold(SessionState(), known), moment))
        clicked = [
            e.event.item for e in acted if e.event.time == following and e.event.type in CLICK_TYPES
        ]
        labels = [item for item in clicked if item not in visited[-1:]]
        if labels:
            yield {
                "visit": "s", "session_id": "s", "moment": moment, "visited": visited,
                "label": labels[0], "label_time": following, "kind": _kind(acted, following, labels[0]),
            }  # fmt: skip
