"""The consumer's source and the door for events against the real broker, killed too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from contracts.errors import ServiceError
from contracts.events import Event, Topic, parse_event, topic_name
from contracts.session import SessionState, fold
from contracts.settings import Settings
from local_stack import stack
from local_stack.lag import Lag
from orchestrator.consumer.kafka_source import KafkaSource
from orchestrator.consumer.ports import Record
from orchestrator.events_door import EventsDoor
from orchestrator.impressions import QueuedMessages
from orchestrator.kafka_events import KafkaEvents
from orchestrator.kafka_log import KafkaLog
from orchestrator.kafka_topics import ensure_topics
from orchestrator.metrics import Metrics
from tests.stack.conftest import free_ports

MARK = "mark"


@pytest.fixture
def settings(infrastructure: Settings) -> Settings:
    """With topics and a group of its own."""
    name = uuid4().hex[:8]
    own = {"topic_prefix": f"k{name}.", "consumer_group": name, "topic_partitions": 2}
    settings = infrastructure.model_copy(update=own)
    ensure_topics(settings)
    return settings


@pytest.fixture
def log(settings: Settings) -> Iterator[KafkaLog]:
    log = KafkaLog(settings, patience=30)
    yield log
    log.close()


@pytest.fixture
def sources(settings: Settings) -> Iterator[Callable[[], KafkaSource]]:
    """Members of the group, each a process of another name."""
    made: list[KafkaSource] = []

    def make() -> KafkaSource:
        named = settings.model_copy(update={"consumer_port": free_ports(1)[0]})
        made.append(KafkaSource(named))
        return made[-1]

    yield make
    for source in made:
        source.close()


def joined(source: KafkaSource) -> KafkaSource:
    """A source as the loop has it after its first assignment."""
    end = time.monotonic() + 30
    while not source.generation:
        assert time.monotonic() < end
        source.poll(0.1, 1)
    source.rewind()
    return source


def take(source: KafkaSource, count: int, limit: int = 500, seconds: float = 20) -> list[Record]:
    """So many messages, or as many as come in time."""
    taken: list[Record] = []
    end = time.monotonic() + seconds
    while len(taken) < count and time.monotonic() < end:
        taken += source.poll(0.2, min(limit, count - len(taken)))
    return taken


def fill(log: KafkaLog, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        log.send(Topic.events, f"s{number % 7}", str(number).encode())
    log.flush(30)


def numbers(records: list[Record]) -> list[int]:
    return sorted(int(record.value) for record in records)


def in_order(records: list[Record]) -> bool:
    """Whether each partition came whole: no offset left out, none twice."""
    offsets: dict[Any, list[int]] = {}
    for record in records:
        offsets.setdefault((record.topic, record.partition), []).append(record.offset)
    return all(after == before + 1 for each in offsets.values() for before, after in pairwise(each))


def test_one_message_ends_the_wait_and_brings_what_is_there(
    log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source = joined(sources())
    fill(log, 1)
    began = time.monotonic()
    assert len(source.poll(10, 500)) == 1
    assert time.monotonic() - began < 3
    fill(log, 300)
    time.sleep(1)
    assert len(source.poll(10, 500)) == 300
    assert source.poll(0.1, 500) == []


def test_a_rewind_brings_again_what_was_not_committed(
    log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source = joined(sources())
    fill(log, 1000)
    first = take(source, 400)
    next_of = {(record.topic, record.partition): record.offset + 1 for record in first}
    source.commit(next_of, MARK)
    take(source, 300)
    assert source.lag() == 300
    source.rewind()
    again = take(source, 1000, seconds=3)
    assert numbers(first + again) == list(range(1000))
    assert in_order(first + again)
    source.rewind()
    assert numbers(take(source, 600)) == numbers(again)


def test_staying_alive_takes_no_message_and_loses_none(
    log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source = joined(sources())
    fill(log, 5000)
    taken = take(source, 50)
    for _ in range(5):
        began = time.monotonic()
        source.keep_alive(0.2)
        assert time.monotonic() - began > 0.15
        taken += source.poll(0.5, 20)
    fill(log, 1000, first=5000)
    source.keep_alive(0.2)
    taken += take(source, 6000 - len(taken))
    assert numbers(taken) == list(range(6000))
    assert in_order(taken)


def test_the_lag_is_what_was_sent_and_not_committed(
    settings: Settings, log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source, lag = joined(sources()), Lag(settings)
    assert lag.messages() == 0
    fill(log, 30)
    taken = take(source, 20)
    assert lag.messages() == 30
    source.commit({(r.topic, r.partition): r.offset + 1 for r in taken}, MARK)
    assert lag.messages() == 10


def test_what_is_told_of_the_past_says_so(
    log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source = joined(sources())
    before = int(time.time() * 1000)
    log.send(Topic.events, "a", b"past", backfill=True)
    log.send(Topic.events, "a", b"now")
    log.flush(10)
    past, now = take(source, 2)
    assert (past.value, past.backfill, now.value, now.backfill) == (b"past", True, b"now", False)
    assert before <= now.known <= int(time.time() * 1000)


def test_a_second_member_goes_on_where_the_first_committed(
    log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    first, taken = joined(sources()), []
    all_of_them = first.assigned()
    assert all_of_them >= 10
    fill(log, 1000)
    taken += take(first, 600)

    def store() -> None:
        revoked.append(first.assigned())
        first.commit({(r.topic, r.partition): r.offset + 1 for r in taken}, MARK)

    revoked: list[int] = []
    first.before_revoked(store)
    second, generation = sources(), first.generation
    end = time.monotonic() + 30
    while first.assigned() + second.assigned() != all_of_them or not second.assigned():
        assert time.monotonic() < end
        polled = first.poll(0.1, 1)
        taken += [] if revoked else polled
        second.poll(0.1, 1)
    assert revoked == [all_of_them]
    assert first.generation > generation
    for source in (first, second):
        source.rewind()
    rest: list[Record] = []
    while len(taken + rest) < 1000 and time.monotonic() < end:
        rest += first.poll(0.1, 500) + second.poll(0.1, 500)
    assert numbers(taken + rest) == list(range(1000))


def test_a_restarted_member_is_back_at_once_and_its_old_self_is_told(
    log: KafkaLog, settings: Settings
) -> None:
    """The same name again, as after a crash. The old one cannot be killed here: it is shut out."""
    old, new = joined(KafkaSource(settings)), KafkaSource(settings)
    fill(log, 10)
    began = time.monotonic()
    try:
        joined(new)
        assert time.monotonic() - began < 5  # a new member would wait for the dead one's 10 s
        assert len(take(new, 10)) == 10
        generation = old.generation
        with pytest.raises(ServiceError, match="reports"):
            until_trouble(old)
        assert old.generation > generation
        assert old.assigned() == 0
    finally:
        new.close()
        old.close()


def until_trouble(source: KafkaSource) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        source.poll(0.1, 1)


def kill_broker(settings: Settings) -> None:
    services = {each["name"]: each for each in stack.status(settings)["services"]}
    os.kill(services["kafka"]["pid"], signal.SIGKILL)


def test_a_killed_broker_is_told_and_nothing_is_lost(
    settings: Settings, log: KafkaLog, sources: Callable[[], KafkaSource]
) -> None:
    source = joined(sources())
    fill(log, 500)
    taken = take(source, 200)
    source.commit({(r.topic, r.partition): r.offset + 1 for r in taken}, MARK)
    kill_broker(settings)
    with pytest.raises(ServiceError, match=r"Kafka .* (is away|gave no messages)"):
        until_trouble(source)
    sent = [log.send(Topic.events, "s", str(number).encode()) for number in range(500, 600)]
    again = after_trouble(source, 400)
    assert all(future.result(30) for future in sent)
    assert numbers(taken + again) == list(range(600))
    assert in_order(taken + again)


def after_trouble(source: KafkaSource, count: int) -> list[Record]:
    """What comes after the committed offsets, taken as the loop does it."""
    taken: list[Record] = []
    generation, end, rewound = source.generation, time.monotonic() + 60, False
    while len(taken) < count and time.monotonic() < end:
        try:
            if not rewound or source.generation != generation:
                generation, rewound, taken = source.generation, False, []
                source.rewind()
                rewound = True
            polled = source.poll(0.2, 100)
            taken += polled if source.generation == generation else []
        except ServiceError:
            source.keep_alive(0.2)
    return taken


# --- the door ------------------------------------------------------------------------------------


class Sender:
    """A shop's site: sends calls of five events, and again what was answered 503."""

    def __init__(self, settings: Settings) -> None:
        self.log, letters, metrics = (
            KafkaLog(settings, delivery_ms=1000),
            KafkaLog(settings),
            Metrics(),
        )
        self._messages = QueuedMessages(letters, metrics)
        self._door = EventsDoor(settings, KafkaEvents(self.log, 1.0), self._messages, metrics)
        self.accepted: list[str] = []
        self.refused = 0

    async def send(self, number: int) -> None:
        now = int(time.time() * 1000)
        body = json.dumps(
            [
                {
                    "session_id": f"s{number % 9}",
                    "type": "search",
                    "query": f"{number}-{n}",
                    "time": now,
                }
                for n in range(5)
            ]
        ).encode()
        while True:
            status, answer = await self._door.accept(body, now)
            if status == 202:
                self.accepted += answer["event_ids"]
                return
            assert (status, answer["accepted"], answer["event_ids"]) == (503, 0, [])
            self.refused += 1
            await asyncio.sleep(0.2)

    def close(self) -> None:
        self._messages.close()
        self.log.close()


def stored_events(settings: Settings) -> list[Event]:
    """All messages of the topic."""
    name = topic_name(settings.topic_prefix, Topic.events)
    client = Consumer({"bootstrap.servers": settings.kafka, "group.id": uuid4().hex})
    client.assign([TopicPartition(name, n, OFFSET_BEGINNING) for n in range(2)])
    found: list[Event] = []
    try:
        while messages := client.consume(10_000, 3.0):
            found += [parse_event(m.value() or b"", int(time.time() * 1000)) for m in messages]
    finally:
        client.close()
    return found


def test_what_was_answered_202_is_in_kafka_and_a_503_may_be_repeated(settings: Settings) -> None:
    sender = Sender(settings)

    async def traffic() -> None:
        calls = []
        for number in range(200):
            if number == 50:
                await asyncio.to_thread(kill_broker, settings)
            calls.append(asyncio.create_task(sender.send(number)))
            await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.gather(*calls), 90)

    try:
        asyncio.run(traffic())
    finally:
        sender.close()
    stored = stored_events(settings)
    assert len(sender.accepted) == len(set(sender.accepted)) == 1000
    assert set(sender.accepted) <= {event.event_id for event in stored}
    for session in range(9):  # what came twice counts once
        events = [event for event in stored if event.session_id == f"s{session}"]
        keys = {event.key for event in events}
        assert {event.key for event in fold(SessionState(), events).events} <= keys
        assert len(fold(SessionState(), events).events) == min(100, len(keys))
    assert sender.refused > 0, "the broker was away: the door must have said so"
