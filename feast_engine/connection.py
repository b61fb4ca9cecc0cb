"""Redis clients for Feast's online store, one Redis or a Redis Cluster, with time limits."""

from __future__ import annotations

import json
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from contracts.errors import ServiceError
from contracts.settings import Settings
from feast_engine.config import OnlineConfig, online_config

SECONDS = 5.0
"""Time limit of one answer where a caller sets none."""

SyncClient = redis.Redis | redis.cluster.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster


def connect(settings: Settings, seconds: float = SECONDS) -> SyncClient:
    """A client that connects when it is first used (of a cluster: at once, redis.ConnectionError
    where it cannot); each answer has to come within `seconds`.

    It does not try again by itself, which would take redis-py 20 seconds: callers have a time
    limit, and know whether to repeat.
    """
    return connect_to(online_config(settings), seconds)


def connect_to(config: OnlineConfig, seconds: float = SECONDS) -> SyncClient:
    """The same, of a configuration."""
    nodes, options = parse(config.connection, seconds)
    if config.cluster:
        startup = [redis.cluster.ClusterNode(host, port) for host, port in nodes]  # type: ignore[no-untyped-call]
        try:
            return redis.cluster.RedisCluster(startup_nodes=startup, **options)
        except RedisClusterException as error:  # which redis-py makes no RedisError
            raise redis.ConnectionError(str(error)) from error
    return redis.Redis(*nodes[0], retry=Retry(NoBackoff(), 0), **options)


def connect_async(settings: Settings, seconds: float = SECONDS) -> AsyncClient:
    """The same for asyncio; `seconds` is the limit of connecting. Reads have one of their own, and
    a limit on each of 200 replies would cost more than the replies."""
    return connect_async_to(online_config(settings), seconds)


def connect_async_to(config: OnlineConfig, seconds: float = SECONDS) -> AsyncClient:
    """The same, of a configuration."""
    nodes, options = parse(config.connection, seconds)
    options["socket_timeout"] = None
    if config.cluster:
        startup = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in nodes]
        return redis.asyncio.cluster.RedisCluster(startup_nodes=startup, **options)
    retry = AsyncRetry(NoBackoff(), 0)
    return redis.asyncio.Redis(host=nodes[0][0], port=nodes[0][1], retry=retry, **options)


def parse(connection: str, seconds: float) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Feast's connection string `host:port[,host:port...][,option=value...]` as nodes and options.

    Values are JSON where they can be, as in Feast; a password stays a text.
    """
    nodes: list[tuple[str, int]] = []
    options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    for part in connection.split(","):
        name, is_option, value = part.partition("=")
        if is_option:
            options[name] = value if name in {"password", "username"} else _json(value)
        else:
            host, _, port = part.rpartition(":")
            nodes.append((host, int(port)))
    return nodes, options


def unreachable(config: OnlineConfig, error: BaseException) -> ServiceError:
    """What a person has to know when Redis does not answer; without the password."""
    place = ",".join(part for part in config.connection.split(",") if "=" not in part)
    return ServiceError(
        f"Redis at {place} does not answer ({type(error).__name__}: {error}): "
        "start the embedded one with ./nextclick up, or set NEXTCLICK_REDIS"
    )


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
