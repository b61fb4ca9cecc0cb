"""The types of the fields of messages: times, ids, texts and prices, and what is refused in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

MAX_ID = 256
"""Longest id, in characters."""
MAX_TEXT = 2000
MAX_PRICE = 1e12
MAX_COUNT = 1_000_000
"""Largest place in a listing, and most pieces."""
YEAR_2200 = 7_258_118_400_000
"""Milliseconds since 1970: times lie before it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search


def _plain_text(value: str) -> str:
    if value.isprintable():  # nearly always, and ten times faster than looking closer
        return value
    if _CONTROL(value):
        raise ValueError("must hold no control characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return value


def to_milliseconds(value: object) -> int:
    """Milliseconds since 1970 UTC of an ISO 8601 text, a datetime or a number of milliseconds.

    A time without zone is UTC. ValueError for anything else, and for years outside 1970..2199.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | datetime):
        raise ValueError("must be milliseconds since 1970 or an ISO 8601 time")
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        value = (zoned - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= value < YEAR_2200:  # nan and infinities fail too
        raise ValueError("must lie between the years 1970 and 2199")
    return int(value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Milliseconds = Annotated[int, BeforeValidator(to_milliseconds, json_schema_input_type=int | str)]
Id = Annotated[
    str, Field(min_length=1, max_length=MAX_ID, strict=True), AfterValidator(_plain_text)
]
Text = Annotated[str, Field(max_length=MAX_TEXT, strict=True), AfterValidator(_plain_text)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, le=MAX_PRICE)]
