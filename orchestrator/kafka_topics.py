"""Making the topics that are missing."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Topic, topic_name
from contracts.settings import Settings
from orchestrator.kafka_log import CLIENT_LOG, CONNECT_MS, REQUEST_MS

RETENTION_MS = 365 * 24 * 3600 * 1000
"""Kafka ages a message by the time of *sending*: what an import sends of last year stays a year."""
TOPIC_SETTINGS = {
    "retention.ms": str(RETENTION_MS),
    # by its time of sending a message counts as known: the broker's own would change when it is
    # copied to another cluster
    "message.timestamp.type": "CreateTime",
}


def ensure_topics(settings: Settings, seconds: float = 30.0) -> None:
    """Make the topics that are missing; those that exist keep their partitions.

    ServiceError when Kafka cannot be reached or does not make them within `seconds`.
    """
    deadline = Deadline(seconds)
    admin = admin_client(settings)
    wanted = {topic_name(settings.topic_prefix, topic): topic for topic in Topic}
    missing = sorted(set(wanted) - _there(settings, admin, deadline))
    if not missing:
        return
    _create(settings, admin, [_new(settings, name, wanted[name]) for name in missing], deadline)
    while left := set(missing) - _there(settings, admin, deadline):  # brokers learn it by and by
        if deadline.expired():
            raise ServiceError(
                f"Kafka ({settings.kafka}) does not show {left} within {seconds:g} s"
            )
        time.sleep(0.05)


def _there(settings: Settings, admin: AdminClient, deadline: Deadline) -> set[str]:
    try:
        return set(admin.list_topics(timeout=max(0.1, deadline.remaining())).topics)
    except KafkaException as error:
        raise ServiceError(
            f"Kafka at {settings.kafka} cannot be reached ({error.args[0].str()}): start it "
            "(./nextclick up) or set NEXTCLICK_KAFKA to where it runs"
        ) from None


def admin_client(settings: Settings) -> AdminClient:
    """Connects when it is asked; every question has a time limit of its own."""
    return AdminClient(
        {
            "bootstrap.servers": settings.kafka,
            "socket.timeout.ms": REQUEST_MS,
            "socket.connection.setup.timeout.ms": CONNECT_MS,
            "reconnect.backoff.max.ms": 1000,
        },
        logger=CLIENT_LOG,
    )


def _new(settings: Settings, name: str, topic: Topic) -> NewTopic:
    partitions = 1 if topic is Topic.dead_letters else settings.topic_partitions
    return NewTopic(name, num_partitions=partitions, config=TOPIC_SETTINGS)


def _create(
    settings: Settings, admin: AdminClient, topics: list[NewTopic], deadline: Deadline
) -> None:
    limit = max(0.1, deadline.remaining())
    made = admin.create_topics(topics, operation_timeout=limit, request_timeout=limit)
    for name, outcome in made.items():
        try:
            outcome.result(limit + 1.0)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another was faster
                raise ServiceError(
                    f"Kafka ({settings.kafka}) did not make the topic {name!r}: "
                    f"{error.args[0].str()}"
                ) from error
