"""Writing to Kafka: one producer that can be made while Kafka is down.

librdkafka does the work: it queues, batches, compresses, connects and tries again on threads of
its own, within bounds that are set here. `KafkaLog` adds a future for each message and says in
words what went wrong.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import BACKFILL_HEADER, Topic, topic_name
from contracts.settings import Settings

MAX_MESSAGES = 20_000
MAX_BYTES = 32 * 1024 * 1024
"""What may be in flight, keys and values together: the memory bound of a `KafkaLog`."""
LINGER_MS = 1
"""For whoever waits: the events of a call travel together, and nobody waits for strangers."""
DELIVERY_MS = 30_000
"""A message that is not acknowledged after this long has failed."""
CONNECT_MS = 3_000
REQUEST_MS = 10_000
TOPIC_MS = 5_000
"""An unknown topic may be one that was made just now, for so long."""
POLL_SECONDS = 0.2
"""Longest sleep of the thread that settles futures; an acknowledgement ends it at once."""
ROOM_SECONDS = 0.005
"""Between tries of a patient `send` to find room."""

Place = tuple[int, int]
"""Partition and offset of a message that Kafka has acknowledged."""
_Told = Callable[[KafkaError | None, Message], None]
_BACKFILL: list[tuple[str, str | bytes | None]] = [(BACKFILL_HEADER, b"")]

CLIENT_LOG = logging.getLogger("orchestrator.kafka")
"""Where librdkafka's own lines go; left alone it writes to stderr."""
QUIET_SECONDS = 10.0


class _Brake(logging.Filter):
    """While Kafka is away each try to connect would be a line: one of a kind at a time is enough.
    The kind is a line's first word."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now = record.getMessage().partition(" ")[0], time.monotonic()
        if now < self._next.get(kind, 0.0):
            return False
        self._next[kind] = now + QUIET_SECONDS
        return True


CLIENT_LOG.addFilter(_Brake())


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that had it is of no more use. Among messages `fatal()` does not tell."""
    return error.fatal() or error.code() == KafkaError._FATAL


class KafkaLog:
    """Appends messages to topics. Thread-safe; connects by itself at the first message.

    `patience`: seconds that `send` waits for room when too much is in flight. 0 (the API's): a
    message that finds no room fails at once. `linger_ms`: how long a message may wait for others
    that go with it; `delivery_ms`: after which a message that is not acknowledged is given up.
    Errors are `ServiceError`s, in the message's future.
    """

    def __init__(
        self,
        settings: Settings,
        patience: float = 0.0,
        linger_ms: int = LINGER_MS,
        delivery_ms: int | None = None,
    ) -> None:
        self._servers = settings.kafka
        self._names = {topic: topic_name(settings.topic_prefix, topic) for topic in Topic}
        self._patience, self._linger_ms = patience, linger_ms
        self._delivery_ms = delivery_ms or DELIVERY_MS
        self._lock = threading.Lock()  # of all below
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._failed = 0
        self._first_error = ""
        self._closed = False

    def send(
        self, topic: Topic, key: str | None, value: bytes, backfill: bool = False
    ) -> Future[Place]:
        """Append a message. The future gives its partition and offset once Kafka has stored it.

        `backfill`: it tells of the past, and counts as known since its own time.
        """
        future: Future[Place] = Future()
        future.set_running_or_notify_cancel()  # it cannot be called off
        settle = functools.partial(self._settle, future)
        if refused := self._produce(topic, key, value, backfill, settle):
            future.set_exception(ServiceError(refused))
        return future

    def put(self, topic: Topic, key: str | None, value: bytes, backfill: bool = False) -> None:
        """As `send`, but only `flush` tells what was not stored: for many messages, since the
        future of a message costs ten times as much as the message."""
        self._produce(topic, key, value, backfill, self._count)

    def flush(self, seconds: float) -> None:
        """Wait until everything sent is stored. ServiceError when it is not within `seconds`, or
        when a message has failed since the last flush."""
        producer = self._producer
        left = producer.flush(seconds) if producer is not None else 0
        with self._lock:
            failed, error = self._failed, self._first_error
            self._failed, self._first_error = 0, ""
        if failed:
            raise ServiceError(f"{failed} messages did not reach Kafka; the first: {error}")
        if left:
            raise ServiceError(
                f"Kafka ({self._servers}) did not store {left} messages within "
                f"{seconds:g} s: see that it runs (./nextclick status) and try again"
            )

    def close(self, seconds: float = 5.0) -> None:
        """Give what is in flight `seconds`, then let go; never raises for what was not stored."""
        with contextlib.suppress(ServiceError):
            self.flush(seconds)
        with self._lock:
            self._closed = True
            self._producer = None
            thread = self._thread
        if thread is not None:
            thread.join(5.0)

    def _produce(
        self, topic: Topic, key: str | None, value: bytes, backfill: bool, told: _Told
    ) -> str:
        """Hand a message to the client, which will call `told`; else why it was not taken."""
        producer, name = self._open(), self._names[topic]
        headers = _BACKFILL if backfill else None
        encoded = None if key is None else key.encode()
        deadline: Deadline | None = None
        while True:
            try:
                producer.produce(name, value, encoded, on_delivery=told, headers=headers)
            except BufferError:
                deadline = deadline or Deadline(self._patience)
                if not deadline.expired():
                    time.sleep(ROOM_SECONDS)
                    continue
                return self._failed_with(self._full())
            except KafkaException as refused:
                error: KafkaError = refused.args[0]
                self._notice(error)
                return self._failed_with(self._not_stored(name, len(value), error))
            return ""

    def _open(self) -> Producer:
        with self._lock:
            if self._closed:
                raise ServiceError("this KafkaLog is closed; make a new one")
            if self._producer is None:
                self._producer = self._made()
                self._thread = threading.Thread(
                    target=self._run, args=(self._producer,), name="kafka-log", daemon=True
                )
                self._thread.start()
            return self._producer

    def _made(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._servers,
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "zstd",
                "partitioner": "murmur2_random",  # as other clients have it: a key, one partition
                "linger.ms": self._linger_ms,
                "batch.size": 256 * 1024,
                "queue.buffering.max.messages": MAX_MESSAGES,
                "queue.buffering.max.kbytes": max(1, MAX_BYTES // 1024),
                "message.timeout.ms": self._delivery_ms,
                "topic.metadata.propagation.max.ms": TOPIC_MS,
                "socket.timeout.ms": REQUEST_MS,
                "socket.connection.setup.timeout.ms": CONNECT_MS,
                "socket.nagle.disable": True,
                "reconnect.backoff.max.ms": 1000,
                "allow.auto.create.topics": False,
                "error_cb": self._notice,
            },
            logger=CLIENT_LOG,
        )

    # --- called by the thread that settles futures ---------------------------------------------

    def _run(self, producer: Producer) -> None:
        while self._producer is producer:
            producer.poll(POLL_SECONDS)
        producer.purge()
        producer.flush(1.0)  # what was purged gets its answer too

    def _settle(self, future: Future[Place], error: KafkaError | None, message: Message) -> None:
        if error is None:
            future.set_result((message.partition() or 0, message.offset() or 0))
        else:
            future.set_exception(ServiceError(self._lost(error, message)))

    def _count(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._lost(error, message)

    def _lost(self, error: KafkaError, message: Message) -> str:
        size = len(message.value() or b"")
        return self._failed_with(self._not_stored(message.topic() or "", size, error))

    def _failed_with(self, why: str) -> str:
        with self._lock:
            self._failed += 1
            self._first_error = self._first_error or why
        return why

    def _notice(self, error: KafkaError) -> None:
        """A producer that has had a fatal error takes no more: the next message gets a new one."""
        if is_fatal(error):
            CLIENT_LOG.warning("the producer gives up and is made anew: %s", error)
            with self._lock:
                self._producer = None

    # --- what to say ---------------------------------------------------------------------------

    def _full(self) -> str:
        return (
            f"{MAX_MESSAGES} messages or {MAX_BYTES} bytes wait for Kafka ({self._servers}) and no "
            "more fit: see that it runs (./nextclick status)"
        )

    def _not_stored(self, topic: str, size: int, error: KafkaError) -> str:
        what = f"a message of {size} bytes in the topic {topic!r}"
        if error.code() == KafkaError._MSG_TIMED_OUT:
            return (
                f"Kafka at {self._servers} did not store {what} within "
                f"{self._delivery_ms / 1000:g} s: start it (./nextclick up) or set NEXTCLICK_KAFKA "
                "to where it runs"
            )
        return (
            f"Kafka ({self._servers}) did not store {what}: {error.str()}; see that it runs and "
            "has the topic (./nextclick status)"
        )
