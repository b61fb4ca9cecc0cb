"""The product's own programs as services: the event consumer and the recommendation service."""

from __future__ import annotations

import sys
import tomllib

from contracts.settings import ROOT, Settings
from local_stack.java import ensure_java
from local_stack.service import BIN, Service, http_call

PROBE_HEADER = {"x-nextclick-probe": "1"}
"""Tells the service that no visitor is asking: no impression is counted."""


def version() -> str:
    """The product's version, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def consumer(settings: Settings) -> Service:
    host, port = settings.host, settings.consumer_port
    return Service(
        name="consumer",
        command=(sys.executable, "-P", "-m", "orchestrator.consumer"),
        folder=settings.home / "consumer",
        ports={"consumer_port": port},
        url=f"http://{host}:{port}",
        version=version(),
        needs=("redis", "kafka"),
        probe=lambda: _probe_readyz(host, port),
        start_seconds=60.0,
        stop_seconds=20.0,
        hint="it needs Kafka and Redis, and the features applied (feast apply)",
    )


def _probe_readyz(host: str, port: int) -> None:
    http_call(host, port, "/readyz")


def stream(settings: Settings) -> Service:
    host, port = settings.host, settings.stream_port
    return Service(
        name="stream",
        command=(sys.executable, "-P", "-m", "spark_jobs", "stream"),
        environment={
            "JAVA_HOME": str(ensure_java(settings)),
            "MALLOC_ARENA_MAX": "2",  # else each of Java's threads keeps memory of its own
            "ARROW_DEFAULT_MEMORY_POOL": "system",  # gives back what it does not need
        },
        folder=settings.home / "stream-run",
        ports={"stream_port": port},
        url=f"http://{host}:{port}",
        version=version(),
        needs=("redis", "kafka", "consumer"),  # the consumer makes the topics
        probe=lambda: _probe_readyz(host, port),
        start_seconds=300.0,  # the first start fetches Spark's Kafka connector, 62 MB
        stop_seconds=20.0,
        hint="it needs Java 17 or 21, 1.4 GB of memory and, at its first start, Maven Central",
    )


def api(settings: Settings) -> Service:
    host, port = settings.host, settings.api_port
    return Service(
        name="api",
        command=(
            str(BIN / "bentoml"),
            "serve",
            "orchestrator.service:NextclickService",
            f"--host={host}",
            f"--port={port}",
            f"--working-dir={ROOT}",
        ),
        environment={
            "BENTOML_HOME": str(settings.home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            # BentoML finds its own helper programs here
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        },
        folder=settings.home / "api",
        ports={"api_port": port},
        url=f"http://{host}:{port}",
        version=version(),
        needs=("redis", "kafka", "triton", "consumer"),
        probe=lambda: probe_api(host, port),
        start_seconds=120.0,
        stop_seconds=20.0,
        hint="it answers without a release too; look at its log",
    )


def probe_api(host: str, port: int) -> None:
    """A real recommendation, for a session that no one has."""
    question = {"session_id": "probe", "k": 1}
    http_call(host, port, "/v1/recommend", question, headers=PROBE_HEADER)
