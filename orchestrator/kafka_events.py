"""Events into Kafka, acknowledged: the port `EventLog` over `KafkaLog`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from contracts.errors import ServiceError
from contracts.events import Topic
from orchestrator.impressions import Log

SECONDS = 3.0
"""Time for Kafka to acknowledge a call's events; a broker that works takes about 10 ms."""


class KafkaEvents:
    def __init__(self, log: Log, seconds: float = SECONDS) -> None:
        self._log, self._seconds = log, seconds

    async def publish(self, topic: Topic, messages: Sequence[tuple[str, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        all_done: asyncio.Future[None] = loop.create_future()
        left = len(messages)

        def settle(error: BaseException | None) -> None:
            nonlocal left
            left -= 1
            if error is not None and not all_done.done():
                all_done.set_exception(error)
            elif left == 0 and not all_done.done():
                all_done.set_result(None)

        def done(future: Future[Any]) -> None:  # in Kafka's thread
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, future.exception())

        for key, value in messages:
            self._log.send(topic, key, value).add_done_callback(done)
        try:
            async with asyncio.timeout(self._seconds):
                await all_done
        except TimeoutError:
            raise ServiceError(
                f"Kafka did not acknowledge {left} of {len(messages)} events within"
                f" {self._seconds:g} s: send them again"
            ) from None
