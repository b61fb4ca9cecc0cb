"""What a session and an item take in the online store, measured over a sample."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypedDict

import redis

from contracts.features import VIEWS
from contracts.settings import Settings
from feast_engine.config import online_config
from feast_engine.connection import connect
from feast_engine.layout import layout_of

SAMPLE = 200
"""Keys of an entity that are measured at most."""
SCANNED = 50_000
"""Keys that are looked at, at most, to find them."""
SECONDS = 1.0
_BATCH = 500


class EntityMemory(TypedDict):
    """Of an entity: mean bytes of a key with all its values; how many were measured; about how
    many there are (all of them counted where `exact`)."""

    bytes: int
    measured: int
    keys: int
    exact: bool


def memory_use(settings: Settings, seconds: float = SECONDS) -> dict[str, EntityMemory] | None:
    """By entity (session, item ...); those of which no key was found are left out. None where
    Redis does not answer. Takes about `seconds` at most, and no key is changed or kept alive."""
    try:
        with contextlib.closing(connect(settings, seconds)) as client:
            return _measured(client, _prefixes(online_config(settings).project), seconds)
    except (redis.RedisError, OSError):
        return None


def lines(found: dict[str, EntityMemory] | None) -> list[str]:
    """The same for a person; nothing where nothing was found."""
    return [
        f"{entity:<9} {each['bytes']:,} bytes each in the online store "
        f"({each['measured']} measured of {'' if each['exact'] else 'about '}{each['keys']:,})"
        for entity, each in (found or {}).items()
    ]


def _prefixes(project: str) -> dict[str, tuple[bytes, bytes]]:
    """By entity, what its keys begin and end with."""
    layouts = {
        "+".join(view.entities): layout_of(view.name, project)
        for view in VIEWS.values()
        if not view.on_demand
    }
    return {entity: (layout.prefix, layout.suffix) for entity, layout in layouts.items()}


def _measured(
    client: Any, prefixes: dict[str, tuple[bytes, bytes]], seconds: float
) -> dict[str, EntityMemory]:
    end = time.monotonic() + seconds
    found: dict[str, list[bytes]] = {entity: [] for entity in prefixes}
    seen = there = 0
    servers = _servers(client)
    for number, server in enumerate(servers, 1):
        there += server.dbsize()
        keys = server.scan_iter(count=_BATCH)
        while seen < SCANNED * number // len(servers) and time.monotonic() < end:
            some = list(islice(keys, _BATCH))
            seen += len(some)
            for entity, (prefix, suffix) in prefixes.items():
                found[entity] += [k for k in some if k.startswith(prefix) and k.endswith(suffix)]
            if len(some) < _BATCH:
                break
    times = there / seen if seen else 0.0
    return dict(_entities(client, found, times, seen >= there, end))


def _servers(client: Any) -> list[Any]:
    """Of a cluster, each that keys lie on."""
    if isinstance(client, redis.Redis):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _entities(
    client: Any, found: dict[str, list[bytes]], times: float, exact: bool, end: float
) -> Iterator[tuple[str, EntityMemory]]:
    """times: all keys there are, over the keys looked at."""
    for entity, keys in found.items():
        if keys and time.monotonic() < end + SECONDS:
            sizes = _sizes(client, keys[:SAMPLE])
            if sizes:
                mean = round(sum(sizes) / len(sizes))
                yield (
                    entity,
                    EntityMemory(
                        bytes=mean, measured=len(sizes), keys=round(len(keys) * times), exact=exact
                    ),
                )


def _sizes(client: Any, keys: list[bytes]) -> list[int]:
    """Of the keys that are still there."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key, samples=0)  # all values of a hash, not five of them
        return [size for size in pipeline.execute() if size is not None]
