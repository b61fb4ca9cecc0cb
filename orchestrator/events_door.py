"""POST /v1/events: from a body to acknowledged events, and to what is said of the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.dead_letters import DeadLetter
from contracts.errors import InvalidEvent, ServiceError
from contracts.events import Event, Reason, Topic, parse_event
from contracts.fields import MAX_ID
from contracts.settings import Settings
from orchestrator.logs import Occasionally
from orchestrator.metrics import Metrics
from orchestrator.ports import EventLog, Impressions
from orchestrator.request import BadRequest, got_list, parse_json


@dataclass
class Sorted:
    """A call's events: the good ones, and the refused ones with their place and reason."""

    good: list[Event] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


class EventsDoor:
    def __init__(
        self, settings: Settings, log: EventLog, letters: Impressions, metrics: Metrics
    ) -> None:
        self._settings, self._log, self._letters = settings, log, letters
        self._metrics, self._failures = metrics, Occasionally()

    async def accept(self, body: bytes, now_ms: int) -> tuple[int, dict[str, Any]]:
        """Status and answer: 202 when at least one event is in Kafka (acknowledged by all its
        replicas), 400 when none is good, 503 when Kafka did not take them in time. After a 503
        send the same call again: repeats are recognised by event id, which an event that has
        neither id nor time of its own does not keep.
        """
        events = sort_events(raw_events(body, self._settings.max_batch_events), now_ms)
        for letter in events.letters:
            self._letters.put(Topic.dead_letters, None, letter)
        self._metrics.events["refused"].inc(len(events.refused))
        answer = {
            "accepted": len(events.good),
            "refused": events.refused,
            "event_ids": [event.event_id for event in events.good],
        }
        if not events.good:
            return 202 if not events.refused else 400, answer
        try:
            messages = [(event.session_id, event.to_json()) for event in events.good]
            await self._log.publish(Topic.events, messages)
        except ServiceError as error:
            return self._unavailable(error, events, answer)
        self._metrics.events["accepted"].inc(len(events.good))
        return 202, answer

    def _unavailable(
        self, error: ServiceError, events: Sorted, answer: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        self._metrics.events["failed"].inc(len(events.good))
        self._failures.warn("events", error)
        message = "the event log did not take the events in time: send the same call again"
        reason = {"field": "", "got": "", "expected": "", "message": message}
        return 503, {**answer, "accepted": 0, "event_ids": [], "error": reason}


def raw_events(body: bytes, most: int) -> list[Any]:
    """The events of a body: one object, a list, or {"events": [...]}."""
    given = parse_json(body)
    if isinstance(given, dict) and "events" in given:
        unknown = next((name for name in given if name != "events"), None)
        if unknown is not None:
            raise BadRequest(unknown, got_list(given[unknown]), "only the field events")
        given = given["events"]
    elif isinstance(given, dict):
        return [given]
    if not isinstance(given, list) or len(given) > most:
        expected = f"one event (an object) or a list of at most {most} events"
        raise BadRequest("events", got_list(given), expected)
    return given


def sort_events(raw: list[Any], now_ms: int) -> Sorted:
    """Each event through `parse_event`; one without a time happened now. An event id that comes
    again in the same call is refused as a repeat."""
    events, seen = Sorted(), set[str]()
    for index, given in enumerate(raw):
        try:
            event = _parse(given, seen, now_ms)
        except InvalidEvent as error:
            said = {**error.as_dict(), "field": error.field[:MAX_ID]}
            events.refused.append({"index": index, **said})
            events.letters.append(DeadLetter.of(error, given, "api", now_ms))
        else:
            seen.add(event.event_id)
            events.good.append(event)
    return events


def _parse(given: object, seen: Collection[str], now_ms: int) -> Event:
    fields: Any = {"time": now_ms, **given} if isinstance(given, Mapping) else given
    event = parse_event(fields, now_ms)
    if event.event_id in seen:
        expected = "an event id that is new in the call"
        raise InvalidEvent(Reason.repeat, "event_id", event.event_id, expected)
    return event
