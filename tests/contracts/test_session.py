"""The session fold: one state, whatever the order, the repeats and the batches."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import EventType, parse_event
from contracts.features import BY_NAME, of_view
from contracts.session import (
    IDLE_MS,
    KEPT_EVENTS,
    SessionEvent,
    SessionState,
    fold,
    items_of,
    session_features,
    visit,
)

HEARTBEAT = int(EventType.heartbeat)


def event(
    time: int,
    key: int,
    item: str = "",
    kind: EventType = EventType.click,
    position: int = -1,
    offset: int = -1,
) -> SessionEvent:
    return SessionEvent(time, key, int(kind), item, position, 0, 0, offset)


events = st.builds(
    event,
    st.integers(0, 5 * IDLE_MS),
    st.integers(0, 30),  # few ids: repeats with other contents happen
    st.sampled_from(["a", "b", ""]),
    st.sampled_from(EventType),
)
many = st.integers(KEPT_EVENTS - 5, KEPT_EVENTS + 60).flatmap(
    lambda count: st.lists(st.integers(0, 10**6), min_size=count, max_size=count, unique=True).map(
        lambda times: [event(time, key) for key, time in enumerate(times)]
    )
)


# as a partition tells them: times that jump to and fro and stand still, ids that come again with the
# same or another content, far more than are kept
told = st.lists(
    st.builds(
        event,
        st.integers(0, 3) | st.integers(0, 10**6) | st.integers(0, 5).map(lambda n: n * IDLE_MS),
        st.integers(0, 3 * KEPT_EVENTS),
        st.sampled_from(["a", "b"]),
        st.sampled_from([EventType.click, EventType.item_view, EventType.heartbeat]),
    ),
    max_size=3 * KEPT_EVENTS,
).map(lambda events: [one._replace(offset=place) for place, one in enumerate(events)])


def folded(*batches: list[SessionEvent]) -> SessionState:
    state = SessionState()
    for batch in batches:
        state = fold(state, batch)
    return state


@given(st.data(), st.lists(events, max_size=40))
def test_order_repeats_and_batches_do_not_matter(
    data: st.DataObject, given_: list[SessionEvent]
) -> None:
    once = folded(given_)
    shuffled = data.draw(st.permutations(given_ + given_[: len(given_) // 2]))
    cut = data.draw(st.integers(0, len(shuffled)))
    assert folded(shuffled[:cut], shuffled[cut:]) == once
    assert folded(*([one] for one in shuffled)) == once
    assert fold(once, given_) == once


@given(st.data(), many)
def test_also_when_there_are_more_than_are_kept(
    data: st.DataObject, given_: list[SessionEvent]
) -> None:
    newest = tuple(sorted(given_)[-KEPT_EVENTS:])
    shuffled = data.draw(st.permutations(given_))
    cut = data.draw(st.integers(0, len(shuffled)))
    assert folded(shuffled[:cut], shuffled[cut:], shuffled).events == newest


@settings(max_examples=40)
@given(st.data(), told)
def test_whatever_is_told_any_order_and_any_repetition_ends_in_the_same_state(
    data: st.DataObject, given_: list[SessionEvent]
) -> None:
    once = folded(given_)
    shuffled = given_ + given_[::3]
    data.draw(st.randoms(use_true_random=False)).shuffle(shuffled)
    cut = data.draw(st.integers(0, len(shuffled)))
    assert folded(shuffled[:cut], shuffled[cut:]) == once
    assert folded(once.events[::-1], given_[cut:]) == once  # type: ignore[arg-type]  # any sequence does
    assert len(once.events) <= KEPT_EVENTS
    assert folded(given_) == once  # pure: nothing of it was changed


@settings(max_examples=40)
@given(st.data(), told)
def test_versions_grow_with_every_change_and_stay_at_a_repeat(
    data: st.DataObject, given_: list[SessionEvent]
) -> None:
    """Also after a crash, when messages come again from some earlier place."""
    state, states = SessionState(), [SessionState()]
    for one in given_:
        before, state = state, fold(state, [one])
        changed = state != before
        assert state.version == (one.offset if changed else before.version)
        newest = [found.events[-1].time if found.events else -1 for found in (before, state)]
        assert newest[0] <= newest[1]  # else the online store would refuse it
        assert fold(state, [one]) == state
        states.append(state)
    place = data.draw(st.integers(0, len(given_)))
    committed = data.draw(st.integers(0, place))
    again = states[place]
    for one in given_[committed:place]:
        again = fold(again, [one])
        assert again == states[place]
    assert folded(list(again.events), given_[place:]) == state


def test_of_one_id_told_twice_the_later_counts_and_of_the_same_the_first_place() -> None:
    early, late = event(1, 7, offset=5), event(2, 7, offset=3)
    assert folded([early, late]).events == folded([late, early]).events == (late,)
    again = late._replace(offset=9)
    assert folded([again, late]).events == folded([late, again]).events == (late,)


@given(st.lists(events, max_size=20), st.lists(st.integers(0, 10**6), max_size=200))
def test_heartbeats_leave_no_trace(given_: list[SessionEvent], times: list[int]) -> None:
    beats = [event(time, 1000 + n, kind=EventType.heartbeat) for n, time in enumerate(times)]
    state = folded(beats, given_, beats)
    assert state == folded(given_)
    assert all(one.type != HEARTBEAT for one in state.events)


@given(st.lists(events, max_size=40))
def test_a_state_is_in_order_and_has_each_id_once(given_: list[SessionEvent]) -> None:
    kept = folded(given_).events
    assert list(kept) == sorted(kept)
    assert len({one.key for one in kept}) == len(kept)


@given(st.lists(events, max_size=20))
def test_a_state_survives_its_columns(given_: list[SessionEvent]) -> None:
    state = folded(given_)
    columns = state.columns()
    assert set(columns) == {f.name for f in of_view("session") if not f.ranked}
    assert SessionState.from_columns(columns) == state


def test_columns_of_unequal_length_are_refused() -> None:
    columns = SessionState((event(1, 1), event(2, 2))).columns()
    columns["event_item"].pop()
    with pytest.raises(ValueError, match="shorter"):
        SessionState.from_columns(columns)


def test_an_event_becomes_what_is_remembered_of_it() -> None:
    raw = {"session_id": "s", "type": "click", "time": 5, "item_id": "i", "device": "app"}
    click = parse_event({**raw, "source": "email"}, now_ms=5)
    assert SessionEvent.of(click) == SessionEvent(5, click.key, 3, "i", -1, 4, 4)
    assert fold(SessionState(), [click]).events == (SessionEvent.of(click),)


@given(st.lists(events, max_size=30), st.integers(0, 6 * IDLE_MS))
def test_a_visit_is_the_newest_run_without_a_long_pause(
    given_: list[SessionEvent], moment: int
) -> None:
    state = folded(given_)
    found = visit(state, moment)
    known = [one for one in state.events if one.time <= moment]
    assert list(found) == known[len(known) - len(found) :]
    times = [*(one.time for one in found), moment]
    assert all(after - before <= IDLE_MS for before, after in pairwise(times))
    if len(found) < len(known):  # the one before it is too long ago
        assert times[0] - known[-len(found) - 1].time > IDLE_MS


def test_a_pause_of_exactly_the_limit_does_not_end_a_visit() -> None:
    state = folded([event(0, 1), event(IDLE_MS, 2)])
    assert len(visit(state, 2 * IDLE_MS)) == 2
    assert len(visit(state, 2 * IDLE_MS + 1)) == 0
    assert len(visit(state, IDLE_MS - 1)) == 1


def test_items_are_what_interest_was_shown_in() -> None:
    kinds = EventType
    seen = [
        event(1, 1, "a", kinds.item_view), event(2, 2, "a", kinds.click), event(3, 3, "", kinds.search),
        event(4, 4, "b", kinds.add_to_cart), event(5, 5, "b", kinds.remove_from_cart),
        event(6, 6, "a", kinds.checkout),
    ]  # fmt: skip
    assert items_of(seen) == ["a", "b", "a"]


def test_the_features_of_a_visit_by_hand() -> None:
    kinds = EventType
    seen = (
        SessionEvent(0, 1, kinds.item_view, "a", 4, 2, 0),
        SessionEvent(10_000, 2, kinds.search, "", -1, 0, 1),
        SessionEvent(40_000, 3, kinds.add_to_cart, "b", -1, 0, 0),
        SessionEvent(60_000, 4, kinds.checkout, "b", -1, 0, 0),
    )
    assert session_features(seen) == {
        "session_events": 4, "session_items": 2, "session_distinct_items": 2, "session_searches": 1,
        "session_carts": 1, "session_purchases": 1, "session_duration": 60, "session_mean_gap": 20,
        "session_last_gap": 20, "session_last_position": 4, "device": 2, "traffic_source": 1,
    }  # fmt: skip


def test_an_empty_visit_has_counts_and_no_times() -> None:
    values = session_features(())
    views = ("session", "context")
    assert set(values) == {n for n, f in BY_NAME.items() if f.view in views and f.ranked}
    assert values["session_events"] == values["device"] == 0
    assert all(isnan(values[name]) for name in ("session_duration", "session_last_gap"))


def test_a_state_from_before_events_had_offsets_is_read() -> None:
    state = SessionState((SessionEvent(5, 1, int(EventType.click), "a", -1, 0, 0, 7),))
    columns = state.columns() | {"event_offset": []}
    read = SessionState.from_columns(columns)
    assert (read.version, [event.item for event in read.events]) == (-1, ["a"])
