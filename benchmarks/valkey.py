"""A Redis of one's own for a benchmark: the embedded stack's, on a free port in a new folder."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis

from contracts.errors import ServiceError
from contracts.settings import Settings

START_SECONDS = 10.0


@contextmanager
def valkey() -> Iterator[tuple[Settings, psutil.Process]]:
    """Settings whose state folder and Redis nobody else has, and the server's process."""
    with tempfile.TemporaryDirectory(prefix="nextclick-") as folder:
        settings = Settings.model_validate(
            {"home": Path(folder), "redis_port": _free_port(), "feast_project": "benchmark"}
        )
        with server(settings) as process:
            yield settings, process


@contextmanager
def server(settings: Settings) -> Iterator[psutil.Process]:
    """The embedded stack's Redis of these settings, alone: started, and stopped at the end."""
    from local_stack import redis as embedded

    service = embedded.redis(settings)
    service.folder.mkdir(parents=True, exist_ok=True)
    if service.prepare is not None:
        service.prepare()
    with (service.folder / "log").open("wb") as log, subprocess.Popen(
        service.command, cwd=service.folder, env={**os.environ, **service.environment},
        stdout=log, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            _await(settings, process)
            yield psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait(START_SECONDS)


def _await(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    from local_stack import redis as embedded

    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            embedded.probe(settings)
        except (redis.RedisError, OSError):
            time.sleep(0.02)
            continue
        return
    raise ServiceError(f"valkey-server did not answer at {settings.redis} in {START_SECONDS:g} s")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
