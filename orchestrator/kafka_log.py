"""Writing to Kafka: one producer that can be made while Kafka is down.

`KafkaLog.send` never waits for the network: messages pass through a bounded queue to one thread
that owns the producer, connects when it can and answers each message through its future. What is
in flight is bounded here, because kafka-python 3 has no bound of its own.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Topic, topic_name
from contracts.settings import Settings

MAX_MESSAGES = 20_000
MAX_BYTES = 32 * 1024 * 1024
"""What may be in flight, keys and values together: the memory bound of a `KafkaLog`."""
LINGER_MS = 5
"""For whoever waits: 0 has a p99 of 119 ms where 5 has 12."""
CONNECT_MS = 3_000
DELIVERY_MS = 30_000
"""A message that is not acknowledged after this long has failed."""
REQUEST_MS = 10_000
RETENTION_MS = 365 * 24 * 3600 * 1000
"""Kafka ages a message by the time of *sending*: what an import sends of last year stays a year."""

Place = tuple[int, int]
"""Partition and offset of a message that Kafka has acknowledged."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Message:
    topic: str
    key: bytes | None
    value: bytes
    expires: float  # monotonic seconds
    future: Future[Place]

    @property
    def size(self) -> int:
        return len(self.value) + len(self.key or b"")


class KafkaLog:
    """Appends messages to topics. Thread-safe; connects by itself at the first message.

    `patience`: seconds that `send` waits for room when too much is in flight. 0 (the API's): a
    message that finds no room fails at once. `linger_ms`: how long a message may wait for others
    that go with it. Errors are `ServiceError`s, in the message's future.
    """

    def __init__(
        self, settings: Settings, patience: float = 0.0, linger_ms: int = LINGER_MS
    ) -> None:
        self._servers = settings.kafka
        self._prefix = settings.topic_prefix
        self._patience, self._linger_ms = patience, linger_ms
        self._queue: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._messages = self._bytes = self._failed = 0
        self._first_error = ""
        self._thread: threading.Thread | None = None
        self._closed = False

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[Place]:
        """Append a message. The future gives its partition and offset once Kafka has stored it."""
        expires = time.monotonic() + DELIVERY_MS / 1000
        encoded = None if key is None else key.encode()
        name = topic_name(self._prefix, topic)
        message = _Message(name, encoded, value, expires, Future())
        with self._room:
            if self._closed:
                raise ServiceError("this KafkaLog is closed; make a new one")
            has_room = self._room.wait_for(lambda: self._fits(message.size), self._patience)
            if has_room:
                self._messages += 1
                self._bytes += message.size
                self._start()
        if has_room:
            self._queue.put(message)
        else:
            message.future.set_exception(ServiceError(self._full()))
        return message.future

    def flush(self, seconds: float) -> None:
        """Wait until everything sent is stored. ServiceError when it is not within `seconds`, or
        when a message has failed since the last flush."""
        with self._room:
            done = self._room.wait_for(lambda: self._messages == 0, seconds)
            failed, error = self._failed, self._first_error
            self._failed, self._first_error = 0, ""
        if failed:
            raise ServiceError(f"{failed} messages did not reach Kafka; the first: {error}")
        if not done:
            raise ServiceError(
                f"Kafka ({self._servers}) did not store {self._messages} messages within "
                f"{seconds:g} s: see that it runs (./nextclick status) and try again"
            )

    def close(self, seconds: float = 5.0) -> None:
        """Give what is in flight `seconds`, then let go; never raises for what was not stored."""
        with contextlib.suppress(ServiceError):
            self.flush(seconds)
        with self._room:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(CONNECT_MS / 1000 + 5.0)

    def _fits(self, size: int) -> bool:
        if self._messages == 0:
            return True
        return self._messages < MAX_MESSAGES and self._bytes + size <= MAX_BYTES

    def _full(self) -> str:
        return (
            f"{self._messages} messages wait for Kafka ({self._servers}) and no more fit: "
            "see that it runs (./nextclick status)"
        )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kafka-log", daemon=True)
            self._thread.start()

    # --- the thread that owns the producer ---------------------------------------------------

    def _run(self) -> None:
        producer: Any = None
        while (message := self._queue.get()) is not None:
            try:
                while producer is None and time.monotonic() < message.expires and not self._closed:
                    producer = self._connect()
                if producer is None:
                    self._finish(message, ServiceError(self._unreachable()))
                else:
                    self._pass_on(producer, message)
            except Exception as error:  # noqa: BLE001  # without this thread nothing is ever sent
                self._finish(message, self._not_stored(message, error))
        if producer is not None:
            from kafka.errors import KafkaError

            with contextlib.suppress(KafkaError):
                producer.close(timeout=5.0)

    def _connect(self) -> Any:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        try:
            return KafkaProducer(
                bootstrap_servers=self._servers.split(","),
                bootstrap_timeout_ms=CONNECT_MS,
                acks="all",
                enable_idempotence=True,
                compression_type="zstd",
                linger_ms=self._linger_ms,
                batch_size=128 * 1024,
                max_block_ms=CONNECT_MS,
                request_timeout_ms=REQUEST_MS,
                delivery_timeout_ms=DELIVERY_MS,
                reconnect_backoff_max_ms=1000,
                allow_auto_create_topics=False,
            )
        except KafkaError as error:
            _log.warning("Kafka (%s) cannot be reached, trying on: %s", self._servers, error)
            time.sleep(0.2)
            return None

    def _pass_on(self, producer: Any, message: _Message) -> None:
        from kafka.errors import KafkaError

        try:
            sent = producer.send(message.topic, value=message.value, key=message.key)
        except KafkaError as error:
            self._finish(message, self._not_stored(message, error))
            return
        sent.add_callback(lambda stored: self._finish(message, (stored.partition, stored.offset)))
        sent.add_errback(lambda error: self._finish(message, self._not_stored(message, error)))

    def _finish(self, message: _Message, outcome: Place | ServiceError) -> None:
        if isinstance(outcome, ServiceError):
            message.future.set_exception(outcome)
        else:
            message.future.set_result(outcome)
        with self._room:
            self._messages -= 1
            self._bytes -= message.size
            if isinstance(outcome, ServiceError):
                self._failed += 1
                self._first_error = self._first_error or str(outcome)
            self._room.notify_all()

    def _unreachable(self) -> str:
        return (
            f"Kafka at {self._servers} cannot be reached: start it (./nextclick up) or set "
            "NEXTCLICK_KAFKA to where it runs"
        )

    def _not_stored(self, message: _Message, error: object) -> ServiceError:
        return ServiceError(
            f"Kafka ({self._servers}) did not store a message of {message.size} bytes in the topic "
            f"{message.topic!r}: {error!r}; see that it runs and has the topic (./nextclick status)"
        )


# --- topics --------------------------------------------------------------------------------------


def ensure_topics(settings: Settings, seconds: float = 30.0) -> None:
    """Make the topics that are missing; those that exist keep their partitions.

    ServiceError when Kafka cannot be reached or does not make them within `seconds`.
    """
    deadline = Deadline(seconds)
    admin = _admin(settings, deadline)
    try:
        wanted = {topic_name(settings.topic_prefix, topic): topic for topic in Topic}
        missing = set(wanted) - set(admin.list_topics())
        if missing:
            _create(admin, {name: _layout(settings, wanted[name]) for name in missing}, deadline)
    except Exception as error:
        raise ServiceError(
            f"Kafka ({settings.kafka}) did not make its topics: {error!r}"
        ) from error
    finally:
        admin.close()


def _layout(settings: Settings, topic: Topic) -> dict[str, Any]:
    partitions = 1 if topic is Topic.dead_letters else settings.topic_partitions
    return {"num_partitions": partitions, "configs": {"retention.ms": str(RETENTION_MS)}}


def _create(admin: Any, topics: dict[str, dict[str, Any]], deadline: Deadline) -> None:
    from kafka.errors import TopicAlreadyExistsError

    with contextlib.suppress(TopicAlreadyExistsError):  # another process was faster
        limit = max(1, int(deadline.remaining() * 1000))
        admin.create_topics(topics, timeout_ms=limit, wait_for_metadata=True)


def _admin(settings: Settings, deadline: Deadline) -> Any:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    error: Exception | None = None
    while not deadline.expired():
        limit = max(1, int(deadline.remaining(at_most=CONNECT_MS / 1000) * 1000))
        try:
            return KafkaAdminClient(
                bootstrap_servers=settings.kafka.split(","),
                bootstrap_timeout_ms=limit,
                request_timeout_ms=REQUEST_MS,
                reconnect_backoff_max_ms=1000,
            )
        except KafkaError as failed:
            error = failed
            time.sleep(deadline.remaining(at_most=0.2))
    raise ServiceError(
        f"Kafka at {settings.kafka} cannot be reached ({error!r}): start it (./nextclick up) or set "
        "NEXTCLICK_KAFKA to where it runs"
    )
