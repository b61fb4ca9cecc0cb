"""How far the event consumer is behind, and waiting until it is not."""

from __future__ import annotations

import time
from collections.abc import Callable

from contracts.errors import ServiceError
from contracts.events import Topic, topic_name
from contracts.settings import Settings

Report = Callable[[str, int, int], None]
CONSUMED = (Topic.events, Topic.products, Topic.prices, Topic.impressions, Topic.served)
STANDSTILL_SECONDS = 60.0
"""So long without progress means that the consumer is stuck, not slow."""


class Lag:
    """Messages that were sent and whose offsets are not committed: not yet in the lake."""

    def __init__(self, settings: Settings) -> None:
        from kafka import KafkaConsumer, TopicPartition

        self._consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka,
            group_id=settings.consumer_group,
            enable_auto_commit=False,
            request_timeout_ms=10_000,
            bootstrap_timeout_ms=10_000,
        )
        names = [topic_name(settings.topic_prefix, topic) for topic in CONSUMED]
        self._partitions = [
            TopicPartition(name, number)
            for name in names
            for number in self._consumer.partitions_for_topic(name) or ()
        ]

    def __enter__(self) -> Lag:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def messages(self) -> int:
        ends = self._consumer.end_offsets(self._partitions)
        done = {part: self._consumer.committed(part) or 0 for part in self._partitions}
        return sum(max(0, ends[part] - done[part]) for part in self._partitions)


def wait_until_consumed(settings: Settings, report: Report) -> None:
    """Until everything sent so far is in the online store and in the lake.

    ServiceError when nothing moves for a minute.
    """
    with Lag(settings) as lag:
        first = left = lag.messages()
        moved = time.monotonic()
        while left:
            report("consumer: online store and lake", first - left, first)
            time.sleep(0.3)
            now = lag.messages()
            if now < left:
                moved = time.monotonic()
            elif time.monotonic() - moved > STANDSTILL_SECONDS:
                raise ServiceError(
                    f"the consumer is {now} messages behind and stands still:"
                    " see ./nextclick status and ./nextclick logs consumer"
                )
            left, first = now, max(first, now)
