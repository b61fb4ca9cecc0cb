"""The one door for events: total, exact about what is wrong, and the same in every wire form."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.dead_letters import DeadLetter
from contracts.errors import InvalidEvent
from contracts.events import (
    CLOCK_SKEW,
    ITEM_TYPES,
    Device,
    Event,
    EventType,
    PriceChange,
    Product,
    Reason,
    TrafficSource,
    parse_event,
    parse_price,
    parse_product,
)
from contracts.fields import MAX_ID, to_milliseconds

NOW = 1_767_225_600_000  # 2026-01-01
CLICK: dict[str, Any] = {"session_id": "s", "type": "click", "time": NOW, "item_id": "i"}

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**320)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["\x00", "\ud800", "", "x" * (MAX_ID + 1), "click", "2026-01-01", -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
ids = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=MAX_ID)
events = st.builds(
    lambda **fields: Event(**{k: v for k, v in fields.items() if v is not None}),
    session_id=ids,
    type=st.sampled_from(EventType),
    time=st.integers(0, NOW),
    item_id=ids,
    event_id=st.none() | ids,
    position=st.none() | st.integers(0, 1000),
    device=st.sampled_from(Device),
    source=st.sampled_from(TrafficSource),
    price=st.none() | st.floats(0, 1e12),
    quantity=st.none() | st.integers(1, 9),
    query=st.none() | ids,
    request_id=st.none() | ids,
)


def refusal(raw: Any, now: int = NOW) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refused:
        parse_event(raw, now)
    return refused.value


@given(st.sampled_from(sorted(Event.model_fields)), anything)
def test_any_value_of_any_field_is_an_event_or_a_refusal(field: str, value: object) -> None:
    for raw in ({**CLICK, field: value}, {field: value}):
        try:
            assert isinstance(parse_event(raw, NOW), Event)
        except InvalidEvent as error:
            _is_complete(error, raw)


@given(anything)
def test_any_json_value_is_an_event_or_a_refusal(value: Any) -> None:
    for parse in (parse_event, parse_product, parse_price):
        for raw in (value, json.dumps(value).encode()):
            with pytest.raises(InvalidEvent) as refused:
                parse(raw, NOW)
            _is_complete(refused.value, raw)


@given(st.text(st.characters(exclude_categories=()), max_size=10), anything)
def test_any_unknown_field_is_a_refusal(name: str, value: object) -> None:
    raw = {**CLICK, name: value}
    if name not in Event.model_fields:
        error = refusal(raw)
        assert error.reason == Reason.unknown_field
        _is_complete(error, raw)
        _is_complete(refusal({**CLICK, "x" * 20_000: value}), raw)


@given(st.binary(max_size=50))
def test_any_bytes_are_an_event_or_a_refusal(raw: bytes) -> None:
    _is_complete(refusal(raw), raw)


def _is_complete(error: InvalidEvent, raw: object) -> None:
    """A refusal says why, and can be written down as a dead letter."""
    assert error.reason in set(Reason)
    assert error.expected
    assert len(error.got) < 200
    letter = DeadLetter.of(error, raw, "api", NOW)
    json.loads(letter.to_json())
    # what the endpoint answers and the lake stores is UTF-8
    for text in (*error.as_dict().values(), letter.detail, letter.raw, letter.field):
        text.encode()
    assert len(letter.field) < 100
    assert len(letter.detail) < 500


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b"1" * 10_000, b'{"time": ' + b"9" * 5000 + b"}", b"\xff", b"NaN", b""]
)
def test_hostile_bytes(raw: bytes) -> None:
    assert refusal(raw).reason in (Reason.not_json, Reason.not_an_object)


@given(events)
def test_the_wire_form_is_the_same_event(event: Event) -> None:
    again = parse_event(event.to_json(), NOW)
    assert again == event
    assert again.key == event.key
    assert again.to_json() == event.to_json()


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"session_id": None}, Reason.no_session, "session_id"),
        ({"session_id": ""}, Reason.no_session, "session_id"),
        ({"session_id": 5}, Reason.bad_id, "session_id"),
        ({"session_id": "a\x00b"}, Reason.bad_id, "session_id"),
        ({"session_id": "x" * (MAX_ID + 1)}, Reason.bad_id, "session_id"),
        ({"session_id": "\ud800"}, Reason.bad_id, "session_id"),
        ({"item_id": None}, Reason.no_item, "item_id"),
        ({"item_id": ""}, Reason.no_item, "item_id"),
        ({"time": None}, Reason.no_time, "time"),
        ({"time": "yesterday"}, Reason.bad_time, "time"),
        ({"time": -1}, Reason.bad_time, "time"),
        ({"time": True}, Reason.bad_time, "time"),
        ({"time": float("nan")}, Reason.bad_time, "time"),
        ({"time": NOW + 300_001}, Reason.time_in_future, "time"),
        ({"type": "buy"}, Reason.unknown_type, "type"),
        ({"type": 3}, Reason.unknown_type, "type"),
        ({"price": -0.01}, Reason.negative_price, "price"),
        ({"price": float("inf")}, Reason.bad_value, "price"),
        ({"device": "fridge"}, Reason.bad_value, "device"),
        ({"colour": "red"}, Reason.unknown_field, "colour"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], reason: Reason, field: str) -> None:
    error = refusal({**CLICK, **change})
    assert (error.reason, error.field) == (reason, field)


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        ("session_id", Reason.no_session),
        ("item_id", Reason.no_item),
        ("time", Reason.no_time),
        ("type", Reason.unknown_type),
    ],
)
def test_an_absent_field_is_named(absent: str, reason: Reason) -> None:
    error = refusal({name: value for name, value in CLICK.items() if name != absent})
    assert (error.reason, error.field) == (reason, absent)


@pytest.mark.parametrize("kind", list(EventType))
def test_only_types_about_an_item_need_one(kind: EventType) -> None:
    raw = {"session_id": "s", "type": kind.name, "time": NOW}
    if kind in ITEM_TYPES:
        assert refusal(raw).reason == Reason.no_item
    else:
        assert parse_event(raw, NOW).type == kind


def test_a_clock_may_be_ahead_by_the_skew_and_no_more() -> None:
    skew = CLOCK_SKEW // timedelta(milliseconds=1)
    assert parse_event({**CLICK, "time": NOW + skew}, NOW).time == NOW + skew
    assert refusal({**CLICK, "time": NOW + skew + 1}).reason == Reason.time_in_future


@pytest.mark.parametrize(
    "time",
    [
        NOW,
        float(NOW),
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00+02:00",
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)
def test_one_moment_in_every_form(time: object) -> None:
    assert to_milliseconds(time) == NOW


def test_an_event_without_id_gets_the_same_one_each_time() -> None:
    first, again = parse_event(CLICK, NOW), parse_event(dict(reversed(CLICK.items())), NOW)
    assert first.event_id == again.event_id
    changes = {
        "session_id": "t",
        "type": "item_view",
        "time": NOW - 1,
        "item_id": "j",
        "position": 0,
    }
    others = {parse_event({**CLICK, name: value}, NOW).event_id for name, value in changes.items()}
    assert len(others | {first.event_id}) == len(changes) + 1


def test_products_and_prices() -> None:
    product = parse_product({"item_id": "i", "time": NOW, "brand": "b"}, NOW)
    assert product == Product(item_id="i", time=NOW, category=None, brand="b", description=None)
    assert json.loads(product.to_json()) == {"item_id": "i", "time": NOW, "brand": "b"}
    price = parse_price(b'{"item_id": "i", "time": 5, "available": false}', NOW)
    assert price == PriceChange(item_id="i", time=5, price=None, available=False)
    with pytest.raises(InvalidEvent, match="available"):
        parse_price({"item_id": "i", "time": 5, "available": "no"}, NOW)


spellings = st.fixed_dictionaries(
    {},
    optional={
        "session_id": st.sampled_from(["s", "", "x" * 256, "x" * 257, "\x01", "é", 5, None]),
        "type": st.sampled_from(["click", "search", "heartbeat", "CLICK", 3, None]),
        "time": st.sampled_from([0, NOW, NOW + 299_999, NOW + 300_001, NOW * 10, -1, 1.5, "2023-01-01", True, None, 2**70]),
        "item_id": st.sampled_from(["i", "", "\x7f", None, 3]),
        "event_id": st.sampled_from(["e", "", None, "x" * 300]),
        "position": st.sampled_from([0, 1_000_000, 1_000_001, -1, "5", 2.0, None, True]),
        "device": st.sampled_from(["app", "unknown", "fridge", 0, None]),
        "source": st.sampled_from(["email", 1, None]),
        "price": st.sampled_from([0, 1, 2.5, -1, 1e13, "3", None, float("nan"), float("inf"), 10**400]),
        "quantity": st.sampled_from([1, 0, 1_000_000, "2", None]),
        "query": st.sampled_from(["red", "", "\n", "x" * 2001, None, 1]),
        "request_id": st.sampled_from(["r", "", None]),
        "more": st.just(1),
    },
)  # fmt: skip


def outcome(raw: dict[str, Any] | bytes) -> object:
    try:
        event = parse_event(raw, NOW)
    except InvalidEvent as error:
        return error.as_dict()
    return event, event.model_fields_set


@settings(max_examples=500)
@given(spellings, st.booleans())
def test_what_we_wrote_ourselves_is_parsed_as_by_the_rules(
    fields: dict[str, Any], whole: bool
) -> None:
    """JSON bytes take a quicker way than a mapping, with the same outcome."""
    base = {"session_id": "s", "type": "click", "time": NOW, "item_id": "i", "event_id": "e"}
    given_fields = {**base, **fields} if whole else fields
    raw = json.dumps(given_fields).encode()
    assert repr(outcome(raw)) == repr(outcome(json.loads(raw)))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"session_id":"a","session_id":"b","type":"search","time":1,"event_id":"x"}',
        b'\xef\xbb\xbf{"session_id":"a","type":"search","time":1,"event_id":"x"}',
        b'{"session_id":"\\ud800","type":"search","time":1,"event_id":"x"}',
        b'{"session_id":"a","type":"search","time":1,"event_id":"x"} more',
        '{"session_id":"a","type":"search","time":1,"event_id":"x"}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_odd_bytes_have_the_same_outcome_too(raw: bytes) -> None:
    try:
        expected = outcome(json.loads(raw))
    except ValueError:
        expected = InvalidEvent(Reason.not_json, "", raw, "a JSON object in UTF-8").as_dict()
    assert repr(outcome(raw)) == repr(expected)


def test_the_quick_way_knows_every_field_and_is_taken() -> None:
    from contracts import events

    full = {
        "session_id": "s", "type": "click", "time": NOW, "item_id": "i", "event_id": "e", "position": 1,
        "device": "app", "source": "email", "price": 1.5, "quantity": 1, "query": "q", "request_id": "r",
    }  # fmt: skip
    assert full.keys() == Event.model_fields.keys()
    event = parse_event(full, NOW)
    assert events._written_by_us(event.to_json()) == event


def test_a_time_in_the_future_is_refused_on_the_quick_way_too() -> None:
    latest = parse_event({**CLICK, "event_id": "e", "time": NOW + 300_000}, NOW).to_json()
    assert parse_event(latest, NOW).time == NOW + 300_000
    with pytest.raises(InvalidEvent, match="a time not after"):
        parse_event(latest, NOW - 1)
