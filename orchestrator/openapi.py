"""What /openapi.json says of bodies and answers, made from `contracts` and with examples."""

from __future__ import annotations

from typing import Any

from contracts.candidates import SOURCES
from contracts.events import Device, Event, Reason, TrafficSource
from contracts.fields import MAX_ID
from contracts.session import KEPT_EVENTS
from orchestrator.metrics import DEGRADED
from orchestrator.request import DEFAULT_K, MAX_EXCLUDE

DESCRIPTION = """Which item will this visitor click next: ranked lists for shop sessions.

`POST /v1/recommend` always answers 200 to a request that is well formed; what had to be done
without stands in `degraded`. `POST /v1/events` takes what visitors do."""

Schema = dict[str, Any]


def _event_schema(*optional: str) -> Schema:
    schema = Event.model_json_schema()
    schema["required"] = [name for name in schema["required"] if name not in optional]
    return schema


def _object(properties: Schema, **more: object) -> Schema:
    return {"type": "object", "properties": properties, **more}


def _list(of: Schema, **more: object) -> Schema:
    return {"type": "array", "items": of, **more}


_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_ERROR = _object({"error": _object(dict.fromkeys(("field", "got", "expected", "message"), _TEXT))})


def _json(schema: Schema, **more: object) -> Schema:
    return {"application/json": {"schema": schema, **more}}


def _answer(description: str, schema: Schema, **more: object) -> Schema:
    return {"description": description, "content": _json(schema, **more)}


_REFUSED = _object(
    {
        "index": {"type": "integer"},
        "reason": {"type": "string", "enum": [reason.value for reason in Reason]},
        **dict.fromkeys(("field", "got", "expected"), _TEXT),
    }
)
_TAKEN = _object(
    {"accepted": {"type": "integer"}, "refused": _list(_REFUSED), "event_ids": _list(_ID)}
)
_ITEM = _object(
    {
        "item_id": _ID,
        "score": {
            "type": "number",
            "description": "The ranker's score; 1 over the place when `degraded` names ranking.",
        },
        "sources": _list({"type": "string", "enum": list(SOURCES)}),
    }
)

RECOMMEND: Schema = {
    "requestBody": {
        "content": _json(
            _object(
                {
                    "session_id": {**_ID, "description": "The visit."},
                    "events": _list(
                        _event_schema("session_id", "time"),
                        description="Events that the store may not have yet. They take the"
                        " session and, without a time, the arrival of the request.",
                    ),
                    "k": {"type": "integer", "minimum": 1, "default": DEFAULT_K},
                    "context": _object(
                        {
                            "device": {"type": "string", "enum": list(Device.__members__)},
                            "source": {"type": "string", "enum": list(TrafficSource.__members__)},
                        },
                        additionalProperties=False,
                        description="In place of what the session's events say.",
                    ),
                    "exclude": _list(_ID, maxItems=MAX_EXCLUDE, description="Never these items."),
                    "exclude_seen": {
                        "type": "boolean",
                        "description": "Whether items of the visit stay out; left out: as the"
                        " release's rules say.",
                    },
                },
                additionalProperties=False,
            ),
            examples={
                "known session": {"value": {"session_id": "s-1", "k": 10}},
                "session and its newest click": {
                    "value": {
                        "session_id": "s-1",
                        "events": [{"type": "click", "item_id": "1203"}],
                        "context": {"device": "mobile"},
                        "exclude": ["77"],
                    }
                },
                "nobody known": {"value": {}},
            },
        )
    },
    "responses": {
        "200": _answer(
            "The list, best first.",
            _object(
                {
                    "request_id": _TEXT,
                    "items": _list(_ITEM),
                    "release": {"type": ["string", "null"]},
                    "session": _object(
                        {"events": {"type": "integer"}},
                        description="What was known of the visit under way: so many events"
                        f" (at most {KEPT_EVENTS}), those of the request among them.",
                    ),
                    "degraded": _list({"type": "string", "enum": list(DEGRADED)}),
                    "timings_ms": {"type": "object", "additionalProperties": _NUMBER},
                }
            ),
        ),
        "400": _answer("The request is not well formed.", _ERROR),
        "413": _answer("The body is too large.", _ERROR),
    },
}

EVENTS: Schema = {
    "requestBody": {
        "content": _json(
            {
                "oneOf": [
                    _event_schema("time"),
                    _list(_event_schema("time")),
                    _object({"events": _list(_event_schema("time"))}, required=["events"]),
                ]
            },
            examples={
                "a click": {"value": {"session_id": "s-1", "type": "click", "item_id": "1203"}},
                "a batch": {
                    "value": {
                        "events": [
                            {
                                "session_id": "s-1",
                                "type": "item_view",
                                "item_id": "1203",
                                "time": "2026-01-31T12:00:00Z",
                                "position": 3,
                                "device": "mobile",
                            },
                            {"session_id": "s-1", "type": "search", "query": "red shoes"},
                        ]
                    }
                },
            },
        )
    },
    "responses": {
        "202": _answer("At least one event is stored; the others are told with reasons.", _TAKEN),
        "400": _answer("No event is good: the same body, or an error of the whole body.", _TAKEN),
        "413": _answer("The body is too large.", _ERROR),
        "503": _answer("Not stored in time: send the same call again.", _TAKEN),
    },
}
