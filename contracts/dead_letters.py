"""Messages that were refused, with their reasons: nothing is dropped in silence."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import Field

from contracts.errors import InvalidEvent
from contracts.events import Message, parse_message
from contracts.fields import Milliseconds


@dataclass(frozen=True)
class DeadLetter:
    """A refused message and why: a row of the dead-letter table, a message of its topic."""

    origin: str  # "import:<file name>", "topic:<name>", "api"
    reason: str
    field: str
    detail: str
    raw: str  # the message as it came, cut to 10,000 characters
    time: int  # when it was refused, milliseconds

    @classmethod
    def of(cls, error: InvalidEvent, raw: object, origin: str, now_ms: int) -> DeadLetter:
        return cls(origin, error.reason, error.field, str(error), _raw_text(raw), now_ms)

    def to_json(self) -> bytes:
        return json.dumps(self.__dict__).encode()


def _raw_text(raw: object) -> str:
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")[:10_000]
    return json.dumps(raw, default=str)[:10_000]


def parse_dead_letter(raw: bytes, now_ms: int) -> DeadLetter:
    """A message of the dead-letter topic."""
    checked = parse_message(_DeadLetterFields, raw, now_ms)
    return DeadLetter(**dict(checked))


class _DeadLetterFields(Message):
    origin: str = Field(max_length=1000)
    reason: str = Field(max_length=100)
    field: str = Field(max_length=1000)
    detail: str = Field(max_length=20_000)
    raw: str = Field(max_length=20_000)
    time: Milliseconds
