"""Events, product messages and Kafka topics: their fields, rules and wire form.

One event is one JSON object. `parse_event` is the only door: the HTTP endpoint, the bulk import
and the consumer call it, so a message means the same wherever it comes in. `docs/events.md` is
generated from this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from enum import IntEnum, StrEnum
from hashlib import blake2b
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from contracts.errors import InvalidEvent
from contracts.fields import MAX_COUNT, Id, Milliseconds, Price, Text
from contracts.wire import event_validator

SCHEMA_VERSION = 1
SESSION_IDLE = timedelta(minutes=30)
"""A pause longer than this ends a visit."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future the time of an event may lie: sender's clocks differ."""
_CLOCK_SKEW_MS = CLOCK_SKEW // timedelta(milliseconds=1)


class EventType(IntEnum):
    """What a visitor did. The numbers are stored: never change one."""

    page_view = 1
    item_view = 2
    click = 3
    search = 4
    add_to_cart = 5
    remove_from_cart = 6
    checkout = 7
    heartbeat = 8


ITEM_TYPES = frozenset(
    {
        EventType.item_view,
        EventType.click,
        EventType.add_to_cart,
        EventType.remove_from_cart,
        EventType.checkout,
    }
)
"""Types that must name an item (the purchase of an order of several items is one event an item)."""
INTEREST_TYPES = ITEM_TYPES - {EventType.remove_from_cart}
"""Types that say the visitor was interested in the item: what candidates and features start from."""
CLICK_TYPES = frozenset({EventType.item_view, EventType.click})
"""Types that are predicted: what a visitor does next."""


class Device(IntEnum):
    unknown = 0
    desktop = 1
    mobile = 2
    tablet = 3
    app = 4


class TrafficSource(IntEnum):
    unknown = 0
    direct = 1
    search = 2
    social = 3
    email = 4
    advertising = 5
    referral = 6


class Reason(StrEnum):
    """Why a message was refused: the `reason` of dead letters and of the endpoint's answers."""

    not_json = "not_json"
    not_an_object = "not_an_object"
    unknown_field = "unknown_field"
    no_session = "no_session"
    no_item = "no_item"
    no_time = "no_time"
    bad_time = "bad_time"
    time_in_future = "time_in_future"
    unknown_type = "unknown_type"
    bad_id = "bad_id"
    negative_price = "negative_price"
    bad_value = "bad_value"
    repeat = "repeat"


class Topic(StrEnum):
    """Kafka topics, without the prefix of the settings (`topic_name`). Keyed as written beside."""

    events = "events"  # key: session
    products = "products"  # key: item
    prices = "prices"  # key: item
    impressions = "impressions"  # key: session
    served = "served"  # key: session
    dead_letters = "dead-letters"  # no key


BACKFILL_HEADER = "backfill"
"""Header of a Kafka message that tells of the past (an import): it counts as known since its own
time, not since it was sent, else nothing of a shop's history would ever have been known."""


def topic_name(prefix: str, topic: Topic) -> str:
    return f"{prefix}{topic.value}"


def _named(enum: type[IntEnum]) -> BeforeValidator:
    def convert(value: object) -> object:
        if isinstance(value, str) and value in enum.__members__:
            return enum[value]
        if isinstance(value, enum):
            return value
        raise ValueError(f"must be one of {', '.join(enum.__members__)}")

    return BeforeValidator(convert, json_schema_input_type=str)


_as_json = json.JSONEncoder(separators=(",", ":")).encode  # made once: json.dumps makes one a call


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False)


class Event(Message):
    """Something a visitor did."""

    session_id: Id = Field(description="The visit. A pause of over 30 minutes begins a new one.")
    type: Annotated[EventType, _named(EventType)] = Field(description="What happened.")
    time: Milliseconds = Field(
        description="When it happened: milliseconds since 1970 UTC, or ISO 8601."
    )
    item_id: Id | None = Field(
        None,
        description="The item; required for item_view, click, add_to_cart, remove_from_cart, checkout.",
    )
    event_id: Id = Field(
        "",
        validate_default=False,
        description="Recognises repeats. Left out, it is made from session, type, item, time and position.",
    )
    position: int | None = Field(
        None,
        ge=0,
        le=MAX_COUNT,
        description="Place of the item in the listing it was shown in, from 0.",
    )
    device: Annotated[Device, _named(Device)] = Field(
        Device.unknown, description="What the visitor uses."
    )
    source: Annotated[TrafficSource, _named(TrafficSource)] = Field(
        TrafficSource.unknown, description="What brought the visitor."
    )
    price: Price | None = Field(None, description="Price that was shown or paid.")
    quantity: int | None = Field(
        None, ge=1, le=MAX_COUNT, description="Pieces put into the cart or bought."
    )
    query: Text | None = Field(None, description="Words of a search.")
    request_id: Id | None = Field(
        None, description="The answer of /v1/recommend whose list was clicked."
    )

    @model_validator(mode="after")
    def _complete(self) -> Event:
        if self.item_id is None and self.type in ITEM_TYPES:
            raise ValueError("no_item")
        if not self.event_id:
            object.__setattr__(self, "event_id", self._derived_id())
        return self

    def _derived_id(self) -> str:
        parts = (
            self.session_id,
            self.type.name,
            self.item_id,
            self.time,
            self.position,
            self.query,
        )
        return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @property
    def key(self) -> int:
        """64 bits of the event id: how the session state recognises a repeat."""
        digest = blake2b(self.event_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def to_json(self) -> bytes:
        """The wire form: names for enums, milliseconds for the time, nothing that is unset."""
        fields = {name: value for name, value in self.__dict__.items() if value is not None}
        fields["type"] = self.type.name
        fields["device"], fields["source"] = self.device.name, self.source.name
        return _as_json(fields).encode()


class Product(Message):
    """What a shop says of an item; a field left out keeps its last value."""

    item_id: Id = Field(description="The item.")
    time: Milliseconds = Field(description="From when this holds.")
    category: Text | None = Field(None, description="Category, broad to narrow, parted by dots.")
    brand: Text | None = Field(None, description="Brand.")
    description: Text | None = Field(None, description="Text for people.")

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class PriceChange(Message):
    """Price and availability of an item; a field left out keeps its last value."""

    item_id: Id = Field(description="The item.")
    time: Milliseconds = Field(description="From when this holds.")
    price: Price | None = Field(None, description="Price.")
    available: bool | None = Field(None, strict=True, description="Whether it can be bought.")

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class Impression(Message):
    """A list that was answered: written by the orchestrator, never by a client."""

    request_id: str
    session_id: str
    time: int
    release: str
    items: list[str]
    scores: list[float]
    sources: list[list[str]]
    degraded: list[str]

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


class ServedRows(Message):
    """The feature rows of an answer's items, as the ranker saw them (`rows` [items, features]), and
    all that is needed to compute them anew: what was asked, and which stored rows were read.

    `asked_at`: the server's clock when the request came (`time` may lie after it, senders' clocks
    differ). `session_version`: see `contracts.session.SessionState.version`. `versions`: by stored
    item view the event time, milliseconds, of the row that was read of each of `items`;
    `visited_versions` of each of `visited` (`contracts.session.items_of`); -1: there was none.
    """

    request_id: str
    session_id: str
    time: int
    asked_at: int
    release: str
    index: str  # the candidate index that proposed; another than the release's during a switch
    session_version: int
    events: list[dict[str, Any]]  # of the request itself, in their wire form
    context: dict[str, int]
    exclude: list[str]  # all that the index left out
    rules: list[dict[str, Any]] = []  # what business rules did to the list (contracts.rules.Effect)
    candidates: int  # how many were asked of the index
    degraded: list[str]
    visited: list[str]
    visited_versions: dict[str, list[int]]
    versions: dict[str, list[int]]
    features: list[str]
    items: list[str]
    rows: list[list[float | None]]
    scores: list[float]

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


# --- the door ----------------------------------------------------------------------------------

MessageT = TypeVar("MessageT", bound=Message)
_EXPECTED = {
    "session_id": "a text of 1 to 256 characters without control characters",
    "item_id": "a text of 1 to 256 characters without control characters",
    "event_id": "a text of 1 to 256 characters without control characters",
    "request_id": "a text of 1 to 256 characters without control characters",
    "type": "one of " + ", ".join(EventType.__members__),
    "device": "one of " + ", ".join(Device.__members__),
    "source": "one of " + ", ".join(TrafficSource.__members__),
    "time": "milliseconds since 1970 or an ISO 8601 time",
    "price": "a number of 0 or more",
}


def parse_event(raw: Mapping[str, Any] | bytes, now_ms: int) -> Event:
    """An event from a mapping or from JSON bytes; InvalidEvent says what is wrong with it.

    `now_ms`: the receiver's clock; an event may lie at most `CLOCK_SKEW` after it.
    """
    event = _written_by_us(raw) if isinstance(raw, bytes) else None
    if event is not None and event.time <= now_ms + _CLOCK_SKEW_MS:
        return event
    return parse_message(Event, raw, now_ms)


def _written_by_us(raw: bytes) -> Event | None:
    """The event of bytes as `Event.to_json` writes them; None: not so, or not a good one."""
    try:
        event: Event = _WIRE.validate_json(raw)
    except ValidationError:
        return None
    return None if event.item_id is None and event.type in ITEM_TYPES else event


_WIRE = event_validator(Event, EventType, Device, TrafficSource)


def parse_product(raw: Mapping[str, Any] | bytes, now_ms: int) -> Product:
    return parse_message(Product, raw, now_ms)


def parse_price(raw: Mapping[str, Any] | bytes, now_ms: int) -> PriceChange:
    return parse_message(PriceChange, raw, now_ms)


def parse_impression(raw: Mapping[str, Any] | bytes, now_ms: int) -> Impression:
    return parse_message(Impression, raw, now_ms)


def parse_served(raw: Mapping[str, Any] | bytes, now_ms: int) -> ServedRows:
    return parse_message(ServedRows, raw, now_ms)


def parse_message(model: type[MessageT], raw: Mapping[str, Any] | bytes, now_ms: int) -> MessageT:
    fields = _fields(raw)
    try:
        message = model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error, fields) from None
    time: int = message.time  # type: ignore[attr-defined]  # every message that is parsed has one
    if time > now_ms + _CLOCK_SKEW_MS:
        expected = f"a time not after the receiver's clock ({now_ms}) plus {CLOCK_SKEW}"
        raise InvalidEvent(Reason.time_in_future, "time", fields["time"], expected)
    return message


def _fields(raw: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise InvalidEvent(Reason.not_json, "", raw, "a JSON object in UTF-8") from None
    if not isinstance(raw, Mapping):
        raise InvalidEvent(Reason.not_an_object, "", raw, "a JSON object")
    return raw


def _invalid(error: ValidationError, fields: Mapping[str, Any]) -> InvalidEvent:
    first = error.errors(include_url=False)[0]
    if not first["loc"] and first["type"] != "value_error":  # a field's name is no Unicode
        return InvalidEvent(Reason.unknown_field, "", list(fields), "fields named in Unicode")
    field = str(first["loc"][0]) if first["loc"] else "item_id"
    value = fields.get(field)
    expected = _EXPECTED.get(field, first["msg"])
    return InvalidEvent(_reason(field, value, first["type"]), field, value, expected)


def _reason(field: str, value: object, kind: str) -> Reason:
    if kind == "extra_forbidden":
        return Reason.unknown_field
    if field in _ABSENT and (value is None or value == ""):
        return _ABSENT[field]
    if field == "price" and isinstance(value, int | float) and value < 0:
        return Reason.negative_price
    return _WRONG.get(field, Reason.bad_value)


_ABSENT = {"session_id": Reason.no_session, "item_id": Reason.no_item, "time": Reason.no_time}
_WRONG = {
    "session_id": Reason.bad_id,
    "item_id": Reason.bad_id,
    "event_id": Reason.bad_id,
    "request_id": Reason.bad_id,
    "time": Reason.bad_time,
    "type": Reason.unknown_type,
}
