"""A message of a topic becomes its type, or a dead letter that says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.dead_letters import DeadLetter, parse_dead_letter
from contracts.errors import InvalidEvent
from contracts.events import (
    Event,
    Impression,
    PriceChange,
    Product,
    Reason,
    ServedRows,
    Topic,
    parse_event,
    parse_impression,
    parse_price,
    parse_product,
    parse_served,
)
from contracts.fields import to_milliseconds
from contracts.tables import LAKE_COLUMNS, Lake
from orchestrator.consumer.ports import Record

Message = Event | Product | PriceChange | Impression | ServedRows | DeadLetter


class Parsed(NamedTuple):
    """`message`: None where there is nothing to do: a dead letter that the consumer itself wrote,
    which stands in the lake already."""

    record: Record
    message: Message | None

    @property
    def known(self) -> int:
        """When it became known, milliseconds: what tells of the past, since its own time."""
        if self.record.backfill and self.message is not None:
            return self.message.time
        return self.record.known

    @property
    def refused(self) -> DeadLetter | None:
        """What this message became, if it could not be parsed."""
        letter = self.message
        own = isinstance(letter, DeadLetter) and letter.origin == _origin(self.record.topic)
        return letter if own and isinstance(letter, DeadLetter) else None


_CONSUMERS_OWN = "topic:"
"""What the origin of the consumer's own dead letters begins with."""


def _origin(topic: Topic) -> str:
    return f"{_CONSUMERS_OWN}{topic.value}"


def _parse_letter(raw: bytes, now_ms: int) -> DeadLetter | None:
    letter = parse_dead_letter(raw, now_ms)
    return None if letter.origin.startswith(_CONSUMERS_OWN) else letter


def parse(record: Record, now_ms: int) -> Parsed:
    """Never raises: whatever one message holds, it must not stop the others."""
    try:
        return Parsed(record, _PARSERS[record.topic](record.value, now_ms))
    except InvalidEvent as refused:
        error = refused
    except Exception as unforeseen:  # noqa: BLE001  # see above
        error = InvalidEvent(Reason.bad_value, "", record.value, f"no {unforeseen!r}")
    return Parsed(record, DeadLetter.of(error, record.value, _origin(record.topic), now_ms))


def _parse_impression(raw: bytes, now_ms: int) -> Impression:
    message = parse_impression(raw, now_ms)
    _check_storable(message)
    return message


def _parse_served(raw: bytes, now_ms: int) -> ServedRows:
    message = parse_served(raw, now_ms)
    _check_served(message)
    _check_storable(message)
    return message


def _check_storable(message: Impression | ServedRows) -> None:
    """Lists of answers come from our own service, unchecked: the lake needs them whole."""
    to_milliseconds(message.time)
    message.to_json()  # fails for text that is no valid Unicode


def _check_served(message: ServedRows) -> None:
    items, columns = len(message.items), set(message.features)
    if len(message.rows) != items or len(message.scores) != items:
        expected = f"a row and a score for each of {items} items"
        raise InvalidEvent(Reason.bad_value, "rows", len(message.rows), expected)
    if any(len(versions) not in (0, items) for versions in message.versions.values()):
        expected = f"versions of {items} items, or none"
        raise InvalidEvent(Reason.bad_value, "versions", message.versions, expected)
    if any(len(row) != len(message.features) for row in message.rows):
        expected = f"rows of {len(message.features)} features"
        raise InvalidEvent(Reason.bad_value, "rows", message.rows[0], expected)
    if len(columns) < len(message.features) or columns & set(LAKE_COLUMNS[Lake.served]):
        raise InvalidEvent(
            Reason.bad_value, "features", message.features, "names of features, each once"
        )


_PARSERS: dict[Topic, Callable[[bytes, int], Message | None]] = {
    Topic.events: parse_event,
    Topic.products: parse_product,
    Topic.prices: parse_price,
    Topic.impressions: _parse_impression,
    Topic.served: _parse_served,
    Topic.dead_letters: _parse_letter,
}
TOPICS: tuple[Topic, ...] = tuple(_PARSERS)
"""What the consumer reads."""
