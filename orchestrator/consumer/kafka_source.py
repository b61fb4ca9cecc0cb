"""The consumer's side of Kafka: `ports.Source` over confluent-kafka."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from contracts.errors import ServiceError
from contracts.events import BACKFILL_HEADER, topic_name
from contracts.settings import Settings
from orchestrator.consumer.parsing import TOPICS
from orchestrator.consumer.ports import Place, Record
from orchestrator.kafka_log import CLIENT_LOG, CONNECT_MS, REQUEST_MS, is_fatal
from orchestrator.kafka_topics import ensure_topics

FETCH_BYTES = 4 * 1024 * 1024
"""Compressed bytes that one fetch brings at most."""
AHEAD_MESSAGES, AHEAD_KILOBYTES = 20_000, 32 * 1024
"""What is fetched ahead of the loop: about so much of memory."""
SESSION_MS = 10_000
"""A member that is not heard of for so long has left the group."""
POLL_MS = 120_000
"""And so has one that does not poll for so long."""


class KafkaSource:
    """Reads the consumer's topics as a member of its group. Connects at the first poll, makes
    topics that are missing, and reconnects by itself.

    It is a *static* member, named by machine and port: after a crash the restarted process takes
    its partitions back at once, where a new member would wait until the group has given up the
    dead one. The price: when a process ends for good, the others take over after SESSION_MS.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = {topic_name(settings.topic_prefix, topic): topic for topic in TOPICS}
        self._client: Consumer | None = None
        self._before_revoked: Callable[[], None] = lambda: None
        self._owned: list[TopicPartition] = []
        self._next: dict[Place, int] = {}
        self._error: KafkaError | None = None
        self._away = self._may_be_paused = False
        self.generation = 0

    def before_revoked(self, action: Callable[[], None]) -> None:
        self._before_revoked = action

    def poll(self, seconds: float, limit: int) -> list[Record]:
        client = self._connected()
        self._raise_what_was_told(client)
        try:
            if self._may_be_paused:
                client.resume(self._owned)
                self._may_be_paused = False
            # asked for many it would wait for many: one ends the wait, then comes what is here
            messages = client.consume(1, seconds)
        except KafkaException as error:
            raise self._trouble("gave no messages", error.args[0]) from error
        if messages and limit > 1:
            try:
                messages += client.consume(limit - 1, 0)
            except KafkaException as error:  # the one that came must not be lost
                self._note(error.args[0])
        records = [self._record(message) for message in messages if self._is_good(message)]
        self._next |= {(record.topic, record.partition): record.offset + 1 for record in records}
        return records

    def commit(self, offsets: Mapping[Place, int], mark: str) -> None:
        if not offsets:
            return
        marks = [
            TopicPartition(
                topic_name(self._settings.topic_prefix, topic), partition, offset, metadata=mark
            )
            for (topic, partition), offset in offsets.items()
        ]
        try:
            noted = self._connected().commit(offsets=marks, asynchronous=False) or []
        except KafkaException as error:
            raise self._trouble("did not take the offsets", error.args[0]) from error
        for refused in (place.error for place in noted if place.error):
            raise self._trouble("did not take the offsets", refused)

    def rewind(self) -> Mapping[Place, str]:
        self._next.clear()
        if not self._owned:
            return {}
        try:
            client = self._connected()
            told = client.committed(self._owned, REQUEST_MS / 1000)
            for refused in (place.error for place in told if place.error):
                raise self._trouble("did not tell the offsets", refused)
            places = [
                TopicPartition(own.topic, own.partition, own.offset)
                if own.offset >= 0
                else TopicPartition(own.topic, own.partition, OFFSET_BEGINNING)
                for own in told
            ]
            client.assign(places)
        except KafkaException as error:
            raise self._trouble("did not go back", error.args[0]) from error
        return {(self._topics[own.topic], own.partition): own.metadata or "" for own in told}

    def keep_alive(self, seconds: float) -> None:
        if self._client is None:
            time.sleep(seconds)
            return
        try:
            self._client.pause(self._owned)
            self._may_be_paused = True
            # only partitions of a new assignment can bring messages here, and those are rewound
            for message in self._client.consume(1, seconds):
                self._is_good(message)
        except KafkaException:
            time.sleep(seconds)

    def lag(self) -> int:
        """Messages behind the ends that the last fetches told."""
        return sum(max(0, self._end(own) - self._next[place]) for own, place in self._known())

    def assigned(self) -> int:
        return len(self._owned)

    def close(self) -> None:
        if self._client is not None:
            try:
                self._client.close()
            except (KafkaException, RuntimeError) as error:
                raise ServiceError(f"Kafka was not parted from in order: {error}") from error

    # --- called by the client while it is polled -----------------------------------------------

    def _assigned(self, _client: Consumer, places: list[TopicPartition]) -> None:
        self._owned = places
        self._may_be_paused = True  # a pause outlives the loss of a partition
        self.generation += 1

    def _revoked(self, _client: Consumer, _places: list[TopicPartition]) -> None:
        self._before_revoked()
        self._lost(_client, _places)

    def _lost(self, _client: Consumer, _places: list[TopicPartition]) -> None:
        self._owned = []
        self._next.clear()
        self.generation += 1

    def _told(self, error: KafkaError) -> None:
        """Of what the client mends by itself only that all brokers are away matters here."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = True
        elif is_fatal(error):
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        """For the next poll to raise; what ends this client outranks what it is ended by."""
        if self._error is None or is_fatal(error):
            self._error = error

    # --- messages and errors -------------------------------------------------------------------

    def _is_good(self, message: Message) -> bool:
        """An error among messages is raised by the next poll: the messages beside it count."""
        error = message.error()
        if error is not None:
            self._note(error)
        return error is None

    def _record(self, message: Message) -> Record:
        name, partition, offset = message.topic(), message.partition(), message.offset()
        assert name is not None and partition is not None and offset is not None  # noqa: S101, PT018  # it came out of a partition
        headers = message.headers()
        backfill = headers is not None and BACKFILL_HEADER in dict(headers)
        value, known = message.value() or b"", message.timestamp()[1]
        return Record(self._topics[name], partition, offset, value, known, backfill)

    def _raise_what_was_told(self, client: Consumer) -> None:
        error, self._error = self._error, None
        if error is not None:
            if is_fatal(error):
                self._begin_anew(client)
            raise self._trouble("reports", error)
        if self._away:
            try:
                client.list_topics(timeout=1.0)
            except KafkaException as away:
                raise self._trouble("is away", away.args[0]) from None
            self._away = False

    def _begin_anew(self, client: Consumer) -> None:
        """A client that has had a fatal error is of no more use: the next poll makes a new one."""
        with suppress(KafkaException, RuntimeError):
            client.close()
        self._client = None
        self._lost(client, [])

    def _trouble(self, what: str, error: KafkaError) -> ServiceError:
        return ServiceError(
            f"Kafka ({self._settings.kafka}) {what}: {error.str()}; "
            "see that it runs (./nextclick status)"
        )

    # --- partitions ----------------------------------------------------------------------------

    def _known(self) -> list[tuple[TopicPartition, Place]]:
        places = [(own, (self._topics[own.topic], own.partition)) for own in self._owned]
        return [(own, place) for own, place in places if place in self._next]

    def _end(self, place: TopicPartition) -> int:
        ends = self._client.get_watermark_offsets(place, cached=True) if self._client else None
        return ends[1] if ends else 0

    def _connected(self) -> Consumer:
        if self._client is None:
            ensure_topics(self._settings, CONNECT_MS / 1000)
            self._client = Consumer(self._configuration(), logger=CLIENT_LOG)
            self._client.subscribe(
                list(self._topics),
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
        return self._client

    def _configuration(self) -> dict[str, object]:
        name = f"{socket.gethostname()}-{self._settings.consumer_port}"
        return {
            "bootstrap.servers": self._settings.kafka,
            "group.id": self._settings.consumer_group,
            "group.instance.id": re.sub(r"[^A-Za-z0-9._-]", "-", name)[-200:],
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.max.bytes": FETCH_BYTES,
            "max.partition.fetch.bytes": 1024 * 1024,
            "queued.min.messages": AHEAD_MESSAGES,
            "queued.max.messages.kbytes": AHEAD_KILOBYTES,
            # of its 1000 the loop would see a pause after each time it was slower than Kafka
            "fetch.queue.backoff.ms": 5,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": 2_000,
            "max.poll.interval.ms": POLL_MS,
            "socket.timeout.ms": REQUEST_MS,
            "socket.connection.setup.timeout.ms": CONNECT_MS,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 1000,
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            "error_cb": self._told,
        }
