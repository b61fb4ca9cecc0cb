"""Events as we write them ourselves, parsed by pydantic's core without a line of Python for each.

Almost every message that the consumer reads was written by `Event.to_json`. What this accepts, it
makes the same event of as `contracts.events.parse_event` does by its own rules; what it does not
accept may still be an event in another spelling, or has to be refused with its reason.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from pydantic_core import SchemaValidator
from pydantic_core import core_schema as core

from contracts.fields import MAX_COUNT, MAX_ID, MAX_PRICE, MAX_TEXT, YEAR_2200

_PLAIN = r"^[^\x00-\x1f\x7f]*$"
_ID = core.str_schema(strict=True, min_length=1, max_length=MAX_ID, pattern=_PLAIN)


def event_validator(
    event: type, kinds: type[IntEnum], devices: type[IntEnum], sources: type[IntEnum]
) -> SchemaValidator:
    """Its `validate_json` makes an `event` (`contracts.events.Event`) of bytes or raises
    pydantic's ValidationError. Not checked: whether the type needs an item."""
    fields = {
        "session_id": core.model_field(_ID),
        "type": core.model_field(_named(kinds)),
        "time": core.model_field(core.int_schema(strict=True, ge=0, lt=YEAR_2200)),
        "item_id": _optional(_ID),
        "event_id": core.model_field(_ID),
        "position": _optional(core.int_schema(strict=True, ge=0, le=MAX_COUNT)),
        "device": _with_default(_named(devices), devices(0)),
        "source": _with_default(_named(sources), sources(0)),
        "price": _optional(core.float_schema(strict=True, ge=0, le=MAX_PRICE, allow_inf_nan=False)),
        "quantity": _optional(core.int_schema(strict=True, ge=1, le=MAX_COUNT)),
        "query": _optional(core.str_schema(strict=True, max_length=MAX_TEXT, pattern=_PLAIN)),
        "request_id": _optional(_ID),
    }
    schema = core.model_fields_schema(fields, extra_behavior="forbid")
    return SchemaValidator(core.model_schema(event, schema, frozen=True))


def _named(enum: type[IntEnum]) -> core.CoreSchema:
    names = core.literal_schema(list(enum.__members__))
    return core.no_info_after_validator_function(enum.__members__.__getitem__, names)


def _with_default(schema: core.CoreSchema, value: Any) -> core.ModelField:
    return core.model_field(core.with_default_schema(schema, default=value))


def _optional(schema: core.CoreSchema) -> core.ModelField:
    return _with_default(core.nullable_schema(schema), None)
