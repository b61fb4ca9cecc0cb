"""What the lake and the online store must hold after some messages, beside what they do hold."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Event, Topic, parse_event, topic_name
from contracts.session import SessionEvent, SessionState, fold
from contracts.settings import Settings
from contracts.tables import Lake

READ_SECONDS = 120.0
STATES_AT_ONCE = 2000
Places = Mapping[tuple[int, int], bytes]
"""Messages of a topic by partition and offset."""


@dataclass(frozen=True)
class Found:
    """`lost` and `twice` are lake rows, as they physically lie in the files; `states_differing`
    sessions whose online state is not the fold of their messages."""

    messages: int
    lake_rows: int
    lost: int
    twice: int
    sessions: int
    states_differing: int

    @property
    def right(self) -> bool:
        return not (self.lost or self.twice or self.states_differing)


def compare(settings: Settings, messages: Places, now_ms: int) -> Found:
    """Lake and online store against all messages of the topic `events`, good ones all."""
    rows = lake_rows(settings, Lake.events)
    wanted = expected_states({place: parse_event(v, now_ms) for place, v in messages.items()})
    return Found(
        messages=len(messages),
        lake_rows=rows.total(),
        lost=len(messages.keys() - rows.keys()),
        twice=sum(count - 1 for count in rows.values()) + len(rows.keys() - messages.keys()),
        sessions=len(wanted),
        states_differing=len(differing_states(settings, wanted)),
    )


def topic_messages(settings: Settings, topic: Topic) -> dict[tuple[int, int], bytes]:
    """All messages of a topic that are in Kafka now."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    name = topic_name(settings.topic_prefix, topic)
    client = Consumer({"bootstrap.servers": settings.kafka, "group.id": "benchmark-truth"})
    try:
        parts = client.list_topics(name, timeout=READ_SECONDS).topics[name].partitions
        places = [TopicPartition(name, number, OFFSET_BEGINNING) for number in parts]
        left = sum(_end(client, each) for each in places)
        client.assign(places)
        found: dict[tuple[int, int], bytes] = {}
        deadline = Deadline(READ_SECONDS)
        while len(found) < left:
            batch = client.consume(10_000, 0.2)
            if deadline.expired():
                raise ServiceError(f"{name}: {len(found)} of {left} messages came")
            for message in batch:
                if message.error() is None:
                    place = message.partition() or 0, message.offset() or 0
                    found[place] = message.value() or b""
    finally:
        client.close()
    return found


def _end(client: Any, place: Any) -> int:
    """Where a partition ends. A broker that has just started does not lead it yet."""
    from confluent_kafka import KafkaError, KafkaException

    passing = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    deadline = Deadline(READ_SECONDS)
    while True:
        try:
            return int(client.get_watermark_offsets(place, timeout=READ_SECONDS)[1])
        except KafkaException as error:
            if deadline.expired() or error.args[0].code() not in passing:
                raise ServiceError(f"{place.topic}: {error.args[0].str()}") from error
            time.sleep(0.1)


def lake_rows(settings: Settings, table: Lake) -> Counter[tuple[int, int]]:
    """How many rows lie in the files for each partition and offset."""
    import pyarrow.parquet as pq

    found: Counter[tuple[int, int]] = Counter()
    for file in Path(settings.lake, table.value).rglob("*.parquet"):
        rows = pq.ParquetFile(file).read(["partition", "offset"])
        columns = rows.column("partition").to_pylist(), rows.column("offset").to_pylist()
        found.update(zip(*columns, strict=True))
    return found


def expected_states(events: Mapping[tuple[int, int], Event]) -> dict[str, SessionState]:
    """The fold of each session's messages, in the order of their offsets."""
    by_session: dict[str, list[SessionEvent]] = {}
    for (_, offset), event in sorted(events.items(), key=lambda found: found[0]):
        by_session.setdefault(event.session_id, []).append(SessionEvent.of(event, offset))
    states = {session: fold(SessionState(), made) for session, made in by_session.items()}
    return {session: state for session, state in states.items() if state.events}


def differing_states(settings: Settings, wanted: Mapping[str, SessionState]) -> list[str]:
    """Sessions whose online state is another one."""
    from orchestrator.consumer.online import FeastStates

    store = FeastStates(settings)
    wrong = []
    for names in _chunks(wanted, STATES_AT_ONCE):
        found = store.read(names)
        wrong += [name for name, state in zip(names, found, strict=True) if state != wanted[name]]
    return wrong


def _chunks(names: Iterable[str], size: int) -> Iterable[list[str]]:
    left = iter(names)
    while chunk := list(islice(left, size)):
        yield chunk
