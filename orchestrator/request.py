"""The body of POST /v1/recommend: what may stand in it, and what is told of what may not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import InvalidEvent, NextclickError, shown
from contracts.events import Device, Event, TrafficSource, parse_event
from contracts.fields import MAX_ID
from contracts.settings import Settings

DEFAULT_K = 20
ANONYMOUS = "-"
"""Stands for the session of a request that names none; nothing is stored under it."""
_FIELDS = ("session_id", "events", "k", "context", "exclude", "exclude_seen")
_ID = f"a text of 1 to {MAX_ID} characters without control characters"
MAX_EXCLUDE = 1000
"""Items that a request may exclude."""


class BadRequest(NextclickError):
    """A request that is refused: the field, what came (as `shown`) and what was expected."""

    def __init__(self, field: str, got: str, expected: str, status: int = 400) -> None:
        self.field, self.got, self.expected, self.status = field[:MAX_ID], got, expected, status
        where = f"field {self.field!r}: " if field else ""
        super().__init__(f"{where}got {got}, expected {expected}")

    def as_dict(self) -> dict[str, Any]:
        error = {"field": self.field, "got": self.got, "expected": self.expected}
        return {"error": {**error, "message": str(self)}}


@dataclass(frozen=True)
class RecommendRequest:
    """`session_id` is empty where the request names no session; `moment` is the newest of its
    arrival (`asked_at`) and its events' times (senders' clocks differ), milliseconds since 1970."""

    session_id: str
    events: tuple[Event, ...]
    k: int
    context: Mapping[str, int]  # overrides of the features `device`, `traffic_source`
    exclude: tuple[str, ...]
    exclude_seen: bool | None  # None: as the rules of the release say
    asked_at: int
    moment: int


def parse_json(body: bytes) -> Any:
    """A JSON text; BadRequest for anything else, NaN and Infinity included."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadRequest("", shown(body), "a body in JSON (UTF-8)") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def parse_recommend(body: bytes, settings: Settings, now_ms: int) -> RecommendRequest:
    """The request in a body; BadRequest says what is wrong with it. An empty object is a request
    for a visitor of whom nothing is known."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        raise BadRequest("", shown(fields), "a JSON object")
    for name in fields:
        if name not in _FIELDS:
            raise BadRequest(name, shown(fields[name]), f"only the fields {', '.join(_FIELDS)}")
    given = fields.get("events", [])
    named = "session_id" in fields
    session_id = _id(fields["session_id"], "session_id") if named else _session_of(given)
    events = _events(given, session_id, settings, now_ms)
    return RecommendRequest(
        session_id=session_id,
        events=events,
        k=_k(fields.get("k", DEFAULT_K), settings.max_k),
        context=_context(fields.get("context", {})),
        exclude=_exclude(fields.get("exclude", [])),
        exclude_seen=_flag(fields.get("exclude_seen"), "exclude_seen"),
        asked_at=now_ms,
        moment=max([now_ms, *(event.time for event in events)]),
    )


def _id(value: object, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID or not _plain(value):
        raise BadRequest(field, shown(value), _ID)
    return value


def _plain(value: str) -> bool:
    """Whether a text is free of control characters and of lone surrogates."""
    if value.isascii():
        return value.isprintable()
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return not any(ord(char) < 32 or ord(char) == 127 for char in value)


def _k(value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:  # bool is no number here
        raise BadRequest("k", shown(value), f"a whole number from 1 to {most}")
    return value


def _context(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise BadRequest("context", shown(value), "an object with device and source")
    overrides = {}
    for name, given in value.items():
        if name not in _CONTEXT:
            raise BadRequest(f"context.{name}", shown(given), "only device and source")
        feature, enum = _CONTEXT[name]
        if not isinstance(given, str) or given not in enum.__members__:
            names = ", ".join(enum.__members__)
            raise BadRequest(f"context.{name}", shown(given), f"one of {names}")
        overrides[feature] = int(enum[given])
    return overrides


_CONTEXT = {"device": ("device", Device), "source": ("traffic_source", TrafficSource)}


def _exclude(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_EXCLUDE:
        raise BadRequest("exclude", got_list(value), f"a list of at most {MAX_EXCLUDE} item ids")
    return tuple(_id(item, f"exclude[{index}]") for index, item in enumerate(value))


def _flag(value: object, field: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise BadRequest(field, shown(value), "true or false")
    return value


def _events(value: object, session_id: str, settings: Settings, now_ms: int) -> tuple[Event, ...]:
    most = settings.max_request_events
    if not isinstance(value, list) or len(value) > most:
        raise BadRequest("events", got_list(value), f"a list of at most {most} events")
    absent = {"session_id": session_id or ANONYMOUS}
    # without times they happened in the order in which they are told, the last one now
    times = range(now_ms - len(value) + 1, now_ms + 1)
    events = tuple(
        _event(raw, {**absent, "time": time}, index, now_ms)
        for index, (raw, time) in enumerate(zip(value, times, strict=True))
    )
    for index, event in enumerate(events):
        if event.session_id != absent["session_id"]:
            expected = f"the request's session ({shown(session_id)}), or none"
            raise BadRequest(f"events[{index}].session_id", shown(event.session_id), expected)
    return events


def _event(raw: object, absent: Mapping[str, object], index: int, now_ms: int) -> Event:
    """An event; what it leaves out it takes from `absent`."""
    fields = {**absent, **raw} if isinstance(raw, dict) else raw
    try:
        return parse_event(fields, now_ms)  # type: ignore[arg-type]  # it refuses what is no object
    except InvalidEvent as error:
        field = f"events[{index}].{error.field}" if error.field else f"events[{index}]"
        raise BadRequest(field, error.got, error.expected) from None


def _session_of(events: object) -> str:
    """The session of the first event that names one."""
    for raw in events if isinstance(events, list) else ():
        if isinstance(raw, dict) and "session_id" in raw:
            return _id(raw["session_id"], "events.session_id")
    return ""


def got_list(value: object) -> str:
    return f"{len(value)} of them" if isinstance(value, list) else shown(value)
