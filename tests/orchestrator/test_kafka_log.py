"""The log while Kafka is away; with Kafka: tests/stack/test_consumer.py."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException

from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.settings import Settings
from orchestrator import kafka_log
from orchestrator.kafka_log import KafkaLog
from orchestrator.kafka_topics import ensure_topics


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a port where no one listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        kafka = f"127.0.0.1:{free.getsockname()[1]}"
    return Settings.model_validate({"home": tmp_path, "kafka": kafka})


@pytest.fixture
def log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaLog]:
    monkeypatch.setattr(kafka_log, "DELIVERY_MS", 1000)
    log = KafkaLog(settings)
    yield log
    log.close(0)


def test_making_and_sending_never_wait_for_kafka(log: KafkaLog) -> None:
    began = time.monotonic()
    future = log.send(Topic.events, "s", b"{}")
    assert time.monotonic() - began < 0.2
    with pytest.raises(
        ServiceError, match=r"did not store .* within 1 s: start it \(\./nextclick up\)"
    ):
        future.result(timeout=5)


def test_flush_tells_what_was_not_stored(log: KafkaLog) -> None:
    log.send(Topic.events, "s", b"{}")
    with pytest.raises(ServiceError, match="did not store 1 messages within 0"):
        log.flush(0.05)
    with pytest.raises(ServiceError, match="1 messages did not reach Kafka"):
        log.flush(5)
    log.flush(0)  # told once
    log.put(Topic.events, None, b"{}")
    with pytest.raises(ServiceError, match="1 messages did not reach Kafka"):
        log.flush(5)


def test_what_found_no_room_is_told_by_flush_too(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_log, "MAX_MESSAGES", 1)
    for _ in range(2):
        log.send(Topic.events, "s", b"{}")
    with pytest.raises(
        ServiceError, match=r"1 messages did not reach Kafka; the first: .* no more"
    ):
        log.flush(0)


def test_patience_waits_for_room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "MAX_MESSAGES", 1)
    log = KafkaLog(settings, patience=5.0, delivery_ms=300)
    log.send(Topic.events, "s", b"{}")
    began = time.monotonic()
    second = log.send(Topic.events, "s", b"{}")  # finds room when the first has failed
    assert 0.1 < time.monotonic() - began < 3
    assert not second.done()
    log.close(0)


def test_what_is_in_flight_is_bounded(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "MAX_MESSAGES", 3)
    futures = [log.send(Topic.events, "s", b"{}") for _ in range(5)]
    refused = [f for f in futures if f.done() and "no more fit" in str(f.exception())]
    assert refused == futures[3:]


def test_bytes_in_flight_are_bounded(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "MAX_BYTES", 1024)
    log.send(Topic.events, "s", b"x" * 600)
    assert "no more fit" in str(log.send(Topic.events, "s", b"x" * 600).exception(timeout=1))


class Exhausted:
    """A producer that has had a fatal error: it takes nothing more."""

    made: ClassVar[list[Exhausted]] = []

    def __init__(self, *_given: object, **_named: object) -> None:
        self.made.append(self)

    def produce(self, *_given: object, **_named: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL, "fatal, says the fake"))

    def poll(self, seconds: float) -> int:
        time.sleep(min(seconds, 0.01))
        return 0

    def flush(self, seconds: float) -> int:
        return 0

    def purge(self) -> None: ...


def test_after_a_fatal_error_the_next_message_gets_a_producer_that_works(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(kafka_log, "Producer", Exhausted)
        refused = log.send(Topic.events, "s", b"{}")
        assert "fatal, says the fake" in str(refused.exception(timeout=1))
    assert len(Exhausted.made) == 1
    accepted = log.send(Topic.events, "s", b"{}")
    assert not accepted.done()


def test_of_lines_of_a_kind_one_at_a_time_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(text: str) -> bool:
        return brake.filter(logging.LogRecord("kafka", logging.ERROR, "", 0, text, (), None))

    brake = kafka_log._Brake()
    said = ["FAIL no connection", "FAIL again", "SESSTMOUT expelled", "FAIL and again"]
    assert [passes(text) for text in said] == [True, False, True, False]
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert passes("FAIL a minute later")


def test_a_closed_log_says_so(log: KafkaLog) -> None:
    log.close(0)
    with pytest.raises(ServiceError, match="closed"):
        log.send(Topic.events, "s", b"{}")


def test_topics_of_a_kafka_that_is_away_are_a_service_error(settings: Settings) -> None:
    began = time.monotonic()
    with pytest.raises(ServiceError, match="cannot be reached"):
        ensure_topics(settings, 1.0)
    assert time.monotonic() - began < 4
