"""Messages off the answer's path: a bounded queue and one thread that renders and sends them."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from contracts.events import Topic
from orchestrator.logs import Occasionally
from orchestrator.metrics import Metrics
from orchestrator.ports import Message

WAITING = 1000
"""Messages that may wait to be rendered (about 40 kB each at most); more are dropped and counted."""


class Log(Protocol):
    """`orchestrator.kafka_log.KafkaLog`: it bounds what is in flight, and fails at once when full."""

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[Any]: ...

    def close(self, seconds: float = 5.0) -> None: ...


class QueuedMessages:
    """Implements `ports.Impressions`. Losing an impression harms no visitor: it is counted in
    `nextclick_messages` and the answer goes out."""

    def __init__(self, log: Log, metrics: Metrics, waiting: int = WAITING) -> None:
        self._log, self._failures = log, Occasionally()
        self._queue: queue.Queue[tuple[Topic, str | None, Message] | None] = queue.Queue(waiting)
        self._outcomes = {
            (topic, outcome): metrics.messages.labels(topic.value, outcome)
            for topic in (Topic.impressions, Topic.served, Topic.dead_letters)
            for outcome in ("sent", "failed", "dropped")
        }
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        self._thread.start()

    def put(self, topic: Topic, key: str | None, message: Message) -> None:
        try:
            self._queue.put_nowait((topic, key, message))
        except queue.Full:
            self._outcomes[topic, "dropped"].inc()

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for at most about twice `seconds`."""
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)
        self._log.close(seconds)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            topic, key, message = entry
            try:
                future = self._log.send(topic, key, message.to_json())
            except Exception as error:  # noqa: BLE001  one bad message must not end the thread
                self._failed(topic, error)
            else:
                future.add_done_callback(partial(self._done, topic))

    def _done(self, topic: Topic, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self._outcomes[topic, "sent"].inc()
        else:
            self._failed(topic, error)

    def _failed(self, topic: Topic, error: BaseException) -> None:
        self._outcomes[topic, "failed"].inc()
        self._failures.warn(f"topic {topic.value}", error)
