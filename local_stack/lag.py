"""How far the event consumer is behind, and waiting until it is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from contracts.errors import ServiceError
from contracts.events import Topic, topic_name
from contracts.settings import Settings
from local_stack.service import http_json

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

Place = tuple[str, int]
"""Topic by its full name, and partition."""
Report = Callable[[str, int, int], None]
CONSUMED = tuple(Topic)
QUESTION_SECONDS = 10.0
STANDSTILL_SECONDS = 60.0
"""So long without progress means that the consumer is stuck, not slow."""


class Lag:
    """Messages that were sent and whose offsets are not committed: not yet in the lake."""

    def __init__(self, settings: Settings) -> None:
        from orchestrator.kafka_topics import admin_client

        self._settings = settings
        self._admin = admin_client(settings)
        self._names = [topic_name(settings.topic_prefix, topic) for topic in CONSUMED]

    def messages(self) -> int:
        """ServiceError when Kafka does not say."""
        from confluent_kafka import KafkaException

        try:
            places = self._partitions()
            done, ends = self._committed(places), self._ends(places)
        except (KafkaException, TimeoutError) as error:
            raise ServiceError(
                f"Kafka ({self._settings.kafka}) does not tell how far the consumer is: {error};"
                " see that it runs (./nextclick status)"
            ) from error
        return sum(max(0, end - max(0, done[place])) for place, end in ends.items())

    def _partitions(self) -> list[TopicPartition]:
        from confluent_kafka import TopicPartition

        there = self._admin.list_topics(timeout=QUESTION_SECONDS).topics
        return [
            TopicPartition(name, number)
            for name in self._names
            if name in there
            for number in there[name].partitions
        ]

    def _committed(self, places: list[TopicPartition]) -> dict[Place, int]:
        """Offset to go on from; negative where nothing was committed."""
        from confluent_kafka import ConsumerGroupTopicPartitions

        asked = ConsumerGroupTopicPartitions(self._settings.consumer_group, places)
        (answer,) = self._admin.list_consumer_group_offsets(
            [asked], request_timeout=QUESTION_SECONDS
        ).values()
        found = answer.result(QUESTION_SECONDS + 1).topic_partitions
        return {(place.topic, place.partition): place.offset for place in found}

    def _ends(self, places: list[TopicPartition]) -> dict[Place, int]:
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        asked = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(asked, request_timeout=QUESTION_SECONDS)
        return {
            (place.topic, place.partition): answer.result(QUESTION_SECONDS + 1).offset
            for place, answer in answers.items()
        }


def behind(settings: Settings) -> dict[str, int] | None:
    """What the running consumer says of itself: messages that it has not taken yet (`lag`), and
    taken ones whose rows wait for the next store (`waiting_for_lake`). None: it is not ready."""
    try:
        facts = http_json(settings.host, settings.consumer_port, "/readyz")
    except (OSError, ServiceError, ValueError):
        return None
    return {name: int(facts[name]) for name in ("lag", "waiting_for_lake")}


def behind_line(found: dict[str, int] | None) -> str:
    if found is None:
        return "consumer: not ready"
    return f"consumer: {found['lag']:,} messages behind, {found['waiting_for_lake']:,} wait for the lake"


def wait_until_consumed(settings: Settings, report: Report) -> None:
    """Until everything sent so far is in the online store and in the lake.

    ServiceError when nothing moves for a minute.
    """
    lag = Lag(settings)
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
