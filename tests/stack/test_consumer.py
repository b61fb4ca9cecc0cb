"""The consumer as a process between the real Kafka and the real Redis."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from contracts.dead_letters import DeadLetter
from contracts.errors import ServiceError
from contracts.events import Event, Topic, parse_event, topic_name
from contracts.session import SessionState
from contracts.settings import Settings
from contracts.tables import Lake
from orchestrator.consumer.online import FeastStates
from orchestrator.kafka_log import KafkaLog
from orchestrator.kafka_topics import ensure_topics
from tests.stack.conftest import free_ports

_log = logging.getLogger(__name__)


class Process:
    """A consumer with topics, group, lake and online project of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, **self.settings.environment()}
        command = [sys.executable, "-P", "-m", "orchestrator.consumer"]
        with (self.settings.home / "consumer.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def page(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.settings.consumer_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # loopback
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def rows(self, table: Lake) -> list[dict[str, Any]]:
        """Rows as they lie in the files of the lake."""
        files = Path(self.settings.lake, table.value).rglob("*.parquet")
        return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def eventually(what: str, true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def consumer(infrastructure: Settings, tmp_path: Path) -> Iterator[Process]:
    name = uuid4().hex[:8]
    own = {
        "home": tmp_path, "lake": str(tmp_path / "lake"), "topic_prefix": f"t{name}.",
        "consumer_group": name, "consumer_port": free_ports(1)[0],
    }  # fmt: skip
    settings = infrastructure.model_copy(update=own)
    ensure_topics(settings)
    process = Process(settings)
    process.start()
    try:
        eventually("ready", lambda: process.page("/readyz")[0] == 200)
        yield process
    finally:
        process.kill()


@pytest.fixture
def log(consumer: Process) -> Iterator[KafkaLog]:
    log = KafkaLog(consumer.settings)
    yield log
    log.close()


def click(session: str, item: int, moment: int) -> Event:
    fields = {"session_id": session, "item_id": str(item), "type": "click", "time": moment}
    return parse_event(fields, moment)


def messages_of(settings: Settings, topic: Topic, seconds: float = 2.0) -> list[Message]:
    """What a topic of one partition holds."""
    client = Consumer({"bootstrap.servers": settings.kafka, "group.id": "reader"})
    client.assign([TopicPartition(topic_name(settings.topic_prefix, topic), 0, OFFSET_BEGINNING)])
    try:
        return [message for message in client.consume(1000, seconds) if not message.error()]
    finally:
        client.close()


def state_of(states: FeastStates, session: str) -> SessionState:
    return states.read([session])[0]


def test_an_event_is_visible_online_within_tens_of_milliseconds(
    consumer: Process, log: KafkaLog, caplog: pytest.LogCaptureFixture
) -> None:
    states, seconds = FeastStates(consumer.settings), []
    session = f"fast-{uuid4().hex}"
    for item in range(120):
        event = click(session, item, int(time.time() * 1000))
        began = time.monotonic()
        log.send(Topic.events, session, event.to_json())
        while not any(e.key == event.key for e in state_of(states, session).events):
            assert time.monotonic() - began < 10
            time.sleep(0.0005)
        seconds.append(time.monotonic() - began)
    ordered = sorted(seconds[20:])  # connections are made, classes loaded
    middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    with caplog.at_level(logging.INFO):  # shown by --log-cli-level=info
        _log.info("sent to visible: p50 %.1f ms, p99 %.1f ms", middle * 1000, late * 1000)
    assert middle < 0.1
    assert late < 0.5


def test_killed_under_load_it_loses_and_doubles_nothing(consumer: Process, log: KafkaLog) -> None:
    now, sessions, each = int(time.time() * 1000), 200, 60
    names = [f"load-{uuid4().hex[:6]}-{number}" for number in range(sessions)]
    for part in range(3):
        for item in range(part * each // 3, (part + 1) * each // 3):
            for name in names:
                log.send(Topic.events, name, click(name, item, now - 60_000 + item).to_json())
        log.flush(30)
        consumer.kill()
        consumer.start()
    states = FeastStates(consumer.settings)
    eventually("all states", lambda: all(len(s.events) == each for s in states.read(names)))
    for state in states.read(names):
        assert [int(event.item) for event in state.events] == list(range(each))
        assert all(before.time < after.time for before, after in pairwise(state.events))
    eventually("all rows", lambda: len(consumer.rows(Lake.events)) >= sessions * each)
    found = consumer.rows(Lake.events)
    assert len(found) == len({row["event_id"] for row in found}) == sessions * each


def test_dead_letters_arrive_in_topic_and_lake_and_nothing_stops(
    consumer: Process, log: KafkaLog
) -> None:
    log.send(Topic.events, "s", b"no json")
    refused_by_the_api = DeadLetter("api", "bad_id", "item_id", "detail", "raw", 1_700_000_000_000)
    log.send(Topic.dead_letters, None, refused_by_the_api.to_json())
    session = f"good-{uuid4().hex}"
    log.send(Topic.events, session, click(session, 1, int(time.time() * 1000)).to_json())
    log.send(Topic.products, "i", b'{"item_id":"i"}')
    log.flush(10)
    states = FeastStates(consumer.settings)
    eventually("the good event", lambda: len(state_of(states, session).events) == 1)
    refused = 'nextclick_consumer_refused_total{reason="no_time"} 1.0'
    eventually("the refused product", lambda: refused in consumer.page("/metrics")[1])
    assert consumer.stop() == 0  # SIGTERM stores what is in memory
    dead = sorted((row["origin"], row["reason"]) for row in consumer.rows(Lake.dead_letters))
    assert dead == [("api", "bad_id"), ("topic:events", "not_json"), ("topic:products", "no_time")]
    letters = messages_of(consumer.settings, Topic.dead_letters)
    assert {json.loads(letter.value() or b"")["reason"] for letter in letters} == {
        "bad_id", "not_json", "no_time",
    }  # fmt: skip
    assert len(consumer.rows(Lake.events)) == 1


def test_the_page_tells_how_it_is(consumer: Process, log: KafkaLog) -> None:
    log.send(Topic.events, "s", b"no json").result(10)
    told = 'nextclick_consumer_refused_total{reason="not_json"} 1.0'
    eventually("the count", lambda: told in consumer.page("/metrics")[1])
    facts = json.loads(consumer.page("/readyz")[1])
    assert facts["ready"]
    assert facts["partitions"] == 5 * consumer.settings.topic_partitions + 1  # dead letters: one
    assert consumer.page("/livez")[0] == 200
    assert consumer.page("/")[0] == 404


def test_a_topic_that_is_not_there_is_an_error_in_time(consumer: Process) -> None:
    settings = consumer.settings.model_copy(update={"topic_prefix": f"none{uuid4().hex}."})
    log = KafkaLog(settings)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="did not store a message"):
        log.send(Topic.events, "s", b"{}").result(20)
    assert time.monotonic() - began < 15
    log.close()


def test_topics_are_made_once(consumer: Process) -> None:
    ensure_topics(consumer.settings)
    log = KafkaLog(consumer.settings)
    places = [log.send(Topic.events, str(key), b"{}").result(20)[0] for key in range(40)]
    assert set(places) == set(range(consumer.settings.topic_partitions))
    assert {log.send(Topic.dead_letters, None, b"{}").result(20)[0] for _ in range(5)} == {0}
    log.close()
