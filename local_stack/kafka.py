"""The embedded Kafka: one KRaft node, its state in HOME/kafka."""

from __future__ import annotations

import secrets
import shutil
import string
import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack.java import ensure_java
from local_stack.service import PROBE_SECONDS, Service, check_port
from local_stack.tools import KAFKA_FILES, KAFKA_VERSION

FORMAT_SECONDS = 120
HEAP = "256m"


def kafka(settings: Settings) -> Service:
    folder = state(settings)
    return Service(
        name="kafka",
        command=(
            *_java(settings),
            f"-Xmx{HEAP}",
            f"-Xms{HEAP}",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={KAFKA_FILES / 'log4j2.properties'}",
            "-cp",
            _class_path(settings),
            "kafka.Kafka",
            str(folder / "server.properties"),
        ),
        folder=folder,
        ports={
            "kafka_port": settings.kafka_port,
            "kafka_controller_port": settings.kafka_controller_port,
        },
        url=f"{settings.host}:{settings.kafka_port}",
        version=KAFKA_VERSION,
        probe=lambda: probe(settings),
        prepare=lambda: prepare(settings),
        start_seconds=120.0,
        stop_seconds=20.0,
        hint=f"Java 17 or 21 and {HEAP} of memory for it are needed",
    )


def state(settings: Settings) -> Path:
    return settings.home / "kafka"


def properties(settings: Settings) -> str:
    """The server.properties of this stack."""
    template = string.Template((KAFKA_FILES / "server.properties").read_text().split("\n", 2)[2])
    return template.substitute(
        host=settings.host,
        port=settings.kafka_port,
        controller_port=settings.kafka_controller_port,
        data=state(settings) / "data",
        partitions=settings.topic_partitions,
    )


def prepare(settings: Settings) -> None:
    """Render the configuration; format the storage the first time."""
    path = state(settings) / "server.properties"
    path.write_text(properties(settings))
    data = state(settings) / "data"
    if not (data / "meta.properties").exists():
        shutil.rmtree(data, ignore_errors=True)  # an interrupted format
        _format(settings, path)


def _format(settings: Settings, path: Path) -> None:
    cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
    command = [
        *_java(settings),
        "-Xmx128m",
        "-cp",
        _class_path(settings),
        "kafka.tools.StorageTool",
    ]
    command += ["format", "-t", cluster, "-c", str(path), "--standalone"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False
    )
    if done.returncode:
        raise ServiceError(
            f"Kafka's storage could not be formatted: {(done.stderr or done.stdout)[-300:]}"
        )


def probe(settings: Settings) -> None:
    """Ask the broker for the cluster's metadata and expect a controller in it."""
    from confluent_kafka import KafkaException

    from orchestrator.kafka_topics import admin_client

    # the client waits long for a port that no one listens on
    check_port(settings.host, settings.kafka_port)
    admin = admin_client(settings)  # let go before the answer it would call the question off
    try:
        cluster = admin.describe_cluster(request_timeout=PROBE_SECONDS).result(PROBE_SECONDS + 0.5)
    except (KafkaException, TimeoutError) as error:
        raise ServiceError(f"Kafka does not describe its cluster: {error}") from error
    if not cluster.nodes or cluster.controller is None:
        raise ServiceError("Kafka names no live broker or no controller")


def _java(settings: Settings) -> list[str]:
    return [str(ensure_java(settings) / "bin/java")]


def _class_path(settings: Settings) -> str:
    return str(settings.tools / "kafka/libs/*")
