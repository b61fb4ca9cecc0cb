"""Events into Kafka, acknowledged: the port `EventLog` over `KafkaLog`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from contracts.errors import ServiceError
from contracts.events import Topic
from orchestrator.impressions import Log

SECONDS = 3.0
"""Time for Kafka to acknowledge a call's events; a broker that works takes about 5 ms."""


class KafkaEvents:
    def __init__(self, log: Log, seconds: float = SECONDS) -> None:
        self._log, self._seconds = log, seconds

    async def publish(self, topic: Topic, messages: Sequence[tuple[str, bytes]]) -> None:
        if not messages:
            return
        call = _Call(len(messages))
        for key, value in messages:
            self._log.send(topic, key, value).add_done_callback(call.answered)
        try:
            async with asyncio.timeout(self._seconds):
                await call.outcome
        except TimeoutError:
            raise ServiceError(
                f"Kafka did not acknowledge {call.left} of {len(messages)} events within"
                f" {self._seconds:g} s: send them again"
            ) from None


class _Call:
    """Counts answers, which come in Kafka's thread, and wakes the waiting call once: after the
    last one, or at the first error."""

    def __init__(self, messages: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[None] = self._loop.create_future()
        self.left = messages
        self._lock = threading.Lock()

    def answered(self, future: Future[Any]) -> None:
        error = future.exception()
        with self._lock:
            self.left -= 1
            last = self.left == 0
        if (last or error is not None) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, error)

    def _wake(self, error: BaseException | None) -> None:
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)
