"""What goes to Kafka: events that are waited for, and messages that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from contracts.dead_letters import DeadLetter
from contracts.errors import ServiceError
from contracts.events import Topic
from orchestrator import kafka_events
from orchestrator.impressions import QueuedMessages
from orchestrator.kafka_events import KafkaEvents
from orchestrator.metrics import Metrics


class FakeKafka:
    """`KafkaLog`'s surface: acknowledges at once, later, never, or with an error."""

    def __init__(self, error: Exception | None = None, answers: bool = True) -> None:
        self.error, self.answers = error, answers
        self.sent: list[tuple[Topic, str | None, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[Any]:
        self.gate.wait(10)
        self.sent.append((topic, key, value))
        future: Future[Any] = Future()
        if self.error is not None:
            future.set_exception(self.error)
        elif self.answers:
            threading.Timer(0.01, future.set_result, [(0, len(self.sent))]).start()
        return future

    def close(self, seconds: float = 5.0) -> None:
        self.gate.set()


def publish(kafka: FakeKafka, count: int) -> None:
    messages = [(f"s{number}", b"{}") for number in range(count)]
    asyncio.run(KafkaEvents(kafka, seconds=0.2).publish(Topic.events, messages))


def test_events_are_acknowledged() -> None:
    kafka = FakeKafka()
    publish(kafka, 50)
    assert [key for _, key, _ in kafka.sent] == [f"s{number}" for number in range(50)]


def test_one_that_fails_fails_all() -> None:
    with pytest.raises(ServiceError, match="full"):
        publish(FakeKafka(ServiceError("full")), 5)


def test_a_call_without_events_waits_for_nothing() -> None:
    publish(FakeKafka(answers=False), 0)


def test_a_call_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    woken, wake = [], kafka_events._Call._wake

    def counted(call: kafka_events._Call, error: BaseException | None) -> None:
        woken.append(error)
        wake(call, error)

    monkeypatch.setattr(kafka_events._Call, "_wake", counted)
    publish(FakeKafka(), 50)
    assert woken == [None]


def test_no_answer_in_time() -> None:
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=r"3 of 3 events within 0\.2 s"):
        publish(FakeKafka(answers=False), 3)
    assert time.monotonic() - begun < 1


LETTER = DeadLetter("api", "bad_id", "item_id", "detail", "raw", 0)


def count(metrics: Metrics, outcome: str) -> float:
    labels = {"topic": "dead-letters", "outcome": outcome}
    return metrics.registry.get_sample_value("nextclick_messages_total", labels) or 0.0


def test_messages_are_sent_and_counted() -> None:
    kafka, metrics = FakeKafka(), Metrics()
    messages = QueuedMessages(kafka, metrics)
    messages.put(Topic.dead_letters, None, LETTER)
    messages.close()
    assert kafka.sent == [(Topic.dead_letters, None, LETTER.to_json())]
    time.sleep(0.1)
    assert count(metrics, "sent") == 1


def test_a_kafka_that_blocks_costs_neither_time_nor_memory() -> None:
    kafka, metrics = FakeKafka(), Metrics()
    kafka.gate.clear()
    messages = QueuedMessages(kafka, metrics, waiting=10)
    begun = time.monotonic()
    for _ in range(1000):
        messages.put(Topic.dead_letters, None, LETTER)
    assert time.monotonic() - begun < 0.5
    assert count(metrics, "dropped") >= 989
    kafka.gate.set()
    messages.close()
    assert len(kafka.sent) + count(metrics, "dropped") == 1000


def test_what_fails_is_counted_and_the_next_is_sent() -> None:
    kafka, metrics = FakeKafka(ServiceError("down")), Metrics()
    messages = QueuedMessages(kafka, metrics)
    messages.put(Topic.dead_letters, None, LETTER)
    messages.put(Topic.dead_letters, None, LETTER)
    messages.close()
    assert count(metrics, "failed") == 2
