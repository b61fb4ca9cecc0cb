"""One Redis, or a Redis Cluster of two, for tests that need nothing else of the stack."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import redis

from benchmarks.valkey import server
from contracts.settings import Settings
from local_stack.redis import redis as embedded
from tests.stack.conftest import free_settings

SLOTS = 16_384


@contextlib.contextmanager
def lone_redis(folder: Path) -> Iterator[Settings]:
    settings = free_settings(folder)
    with server(settings):
        yield settings


@contextlib.contextmanager
def redis_cluster(folder: Path) -> Iterator[Settings]:
    """Two servers that share the slots."""
    halves = [free_settings(folder / name) for name in ("a", "b")]
    with contextlib.ExitStack() as started:
        clients = []
        for half in halves:
            ports = ["--port", str(half.redis_port), "--cluster-port", str(half.kafka_port)]
            process = subprocess.Popen(
                [embedded(half).command[0], *ports, "--cluster-enabled", "yes", "--save", "",
                 "--bind", half.host, "--dir", str(_made(half.home))],
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            started.callback(process.wait, 10)
            started.callback(process.kill)
            clients.append(started.enter_context(redis.Redis(half.host, half.redis_port)))
        _join(clients, halves)
        nodes = ",".join(half.redis for half in halves)
        yield halves[0].model_copy(update={"redis": nodes, "redis_type": "redis_cluster"})


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _join(clients: list[redis.Redis], halves: list[Settings]) -> None:
    for client in clients:
        _until(client.ping)
    middle = SLOTS // 2
    for client, slots in zip(clients, ((0, middle - 1), (middle, SLOTS - 1)), strict=True):
        _command(client, "ADDSLOTSRANGE", *slots)
    other = halves[1]
    _command(clients[0], "MEET", other.host, other.redis_port, other.kafka_port)
    for client in clients:
        _until(partial(_is_ready, client))


def _command(client: Any, *parts: object) -> Any:
    return client.execute_command("CLUSTER", *parts)


def _is_ready(client: redis.Redis) -> bool:
    return b"cluster_state:ok" in _command(client, "INFO")


def _until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(redis.RedisError, OSError):
            if true():
                return
        time.sleep(0.02)
    raise TimeoutError(f"the cluster was not ready in {seconds:g} s")
