"""The consumer's side of Kafka: `ports.Source` over kafka-python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from contracts.errors import ServiceError
from contracts.events import topic_name
from contracts.settings import Settings
from orchestrator.consumer.parsing import TOPICS
from orchestrator.consumer.ports import Place, Record
from orchestrator.kafka_log import CONNECT_MS, ensure_topics

FETCH_BYTES = 4 * 1024 * 1024
"""Compressed bytes that one fetch brings at most: some 40 MB of messages in memory."""
COMMIT_MS = 10_000


class KafkaSource(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Reads the consumer's topics as a member of its group. Connects at the first poll, makes
    topics that are missing, and reconnects by itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = {topic_name(settings.topic_prefix, topic): topic for topic in TOPICS}
        self._consumer: Any = None
        self._before_revoked: Callable[[], None] = lambda: None
        self._next: dict[Any, int] = {}
        self.generation = 0

    def before_revoked(self, action: Callable[[], None]) -> None:
        self._before_revoked = action

    def poll(self, seconds: float, limit: int) -> list[Record]:
        try:
            consumer = self._connected()
            consumer.resume(*consumer.paused())
            polled = consumer.poll(timeout_ms=int(seconds * 1000), max_records=limit)
        except KafkaError as error:
            raise self._trouble("gave no messages", error) from error
        self._next.update({place: records[-1].offset + 1 for place, records in polled.items()})
        return [
            Record(self._topics[place.topic], place.partition, record.offset, record.value or b"")
            for place, records in polled.items()
            for record in records
        ]

    def commit(self, offsets: Mapping[Place, int]) -> None:
        if not offsets:
            return
        marks = {
            TopicPartition(topic_name(self._settings.topic_prefix, topic), partition):
            OffsetAndMetadata(offset, "", -1)
            for (topic, partition), offset in offsets.items()
        }  # fmt: skip
        try:
            self._connected().commit(marks, timeout_ms=COMMIT_MS)
        except KafkaError as error:
            raise self._trouble("did not take the offsets", error) from error

    def rewind(self) -> None:
        self._next.clear()
        try:
            consumer = self._connected()
            for place in consumer.assignment():
                offset = consumer.committed(place, timeout_ms=COMMIT_MS)
                if offset is None:
                    consumer.seek_to_beginning(place)
                else:
                    consumer.seek(place, offset)
        except KafkaError as error:
            raise self._trouble("did not tell the offsets", error) from error

    def keep_alive(self, seconds: float) -> None:
        if self._consumer is None:
            time.sleep(seconds)
            return
        self._consumer.pause(*self._consumer.assignment())
        try:
            # only partitions of a new assignment can bring messages here, and those are rewound
            self._consumer.poll(timeout_ms=int(seconds * 1000), max_records=1)
        except KafkaError:
            time.sleep(seconds)

    def lag(self) -> int:
        """Messages behind the ends that the last fetches told."""
        ends = {place: self._consumer.highwater(place) for place in self._next}
        return sum(max(0, (ends[place] or 0) - self._next[place]) for place in ends)

    def assigned(self) -> int:
        return len(self._consumer.assignment()) if self._consumer else 0

    def close(self) -> None:
        if self._consumer is not None:
            try:
                self._consumer.close(autocommit=False, timeout_ms=COMMIT_MS)
            except KafkaError as error:
                raise self._trouble("did not part in order", error) from error

    # --- called by kafka-python while polling --------------------------------------------------

    def on_partitions_revoked(self, revoked: object) -> None:  # noqa: ARG002
        self._before_revoked()
        self.generation += 1

    def on_partitions_assigned(self, assigned: object) -> None:  # noqa: ARG002
        self.generation += 1

    def on_partitions_lost(self, lost: object) -> None:  # noqa: ARG002
        self.generation += 1

    def _connected(self) -> Any:
        if self._consumer is None:
            ensure_topics(self._settings, CONNECT_MS / 1000)
            self._consumer = KafkaConsumer(
                bootstrap_servers=self._settings.kafka.split(","),
                bootstrap_timeout_ms=CONNECT_MS,
                group_id=self._settings.consumer_group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=1024 * 1024,
                session_timeout_ms=10_000,
                heartbeat_interval_ms=2_000,
                max_poll_interval_ms=120_000,
                request_timeout_ms=COMMIT_MS,
                reconnect_backoff_max_ms=1000,
                metadata_max_age_ms=30_000,
                allow_auto_create_topics=False,
            )
            self._consumer.subscribe(list(self._topics), listener=self)
        return self._consumer

    def _trouble(self, what: str, error: Exception) -> ServiceError:
        return ServiceError(
            f"Kafka ({self._settings.kafka}) {what}: {error!r}; see that it runs (./nextclick status)"
        )
