"""Whether Redis would remember what it took, and whether it has restarted meanwhile.

With `appendfsync everysec` Redis answers before the write is in its append-only file, let alone on
the disk: a kill within the next seconds can take acknowledged writes with it. WAITAOF (Redis 7.2,
Valkey) waits until all writes of its connection are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
import redis.cluster

from contracts.errors import ServiceError
from feast_engine.connection import SyncClient

SECONDS = 10.0
"""Time limit of one try. Measured with `everysec`: 0.1 s when idle, up to a second under load."""
FENCE_SECONDS = 3600
_TAGS = 100_000
"""Key tags that are tried until each shard of a cluster has one: a few for each shard do."""


def life(client: SyncClient) -> str:
    """The run ids of all primaries: another text after a restart or a failover. Raises
    redis.RedisError and OSError."""
    if isinstance(client, redis.cluster.RedisCluster):
        nodes: Any = client.info("server", target_nodes=redis.cluster.RedisCluster.PRIMARIES)
        if "run_id" in nodes:  # of one primary redis-py gives the answer itself
            return str(nodes["run_id"])
        return ",".join(sorted(str(answer["run_id"]) for answer in nodes.values()))
    answer: Any = client.info("server")
    return str(answer["run_id"])


def confirm(client: SyncClient, project: str) -> bool:
    """Wait until everything that was written before, by whatever connection, is on the disk of
    every primary. False where Redis cannot tell: it keeps no append-only file, or is too old.

    ServiceError when it is not within `SECONDS`; raises redis.RedisError and OSError.
    """
    told = [_confirm(node, key) for node, key in _fences(client, project)]
    return all(told)


def _fences(client: SyncClient, project: str) -> Iterator[tuple[redis.Redis, str]]:
    """Each primary, and a key that lies on it."""
    if isinstance(client, redis.Redis):
        yield client, f"{project}:fence"
        return
    nodes: Any = client
    left = {node.name for node in nodes.get_primaries()}
    for tag in range(_TAGS):
        key = f"{project}:fence:{{{tag}}}"
        node = nodes.get_node_from_key(key)
        if node.name in left:
            left.remove(node.name)
            yield nodes.get_redis_connection(node), key
        if not left:
            return
    raise ServiceError(f"the cluster's primaries {sorted(left)} hold no keys: see its slots")


def _confirm(node: redis.Redis, key: str) -> bool:
    """WAITAOF waits for its own connection's last write: the fence, which comes after all others."""
    with node.pipeline(transaction=False) as pipeline:
        pipeline.set(key, 1, ex=FENCE_SECONDS)
        pipeline.execute_command("WAITAOF", 1, 0, int(SECONDS * 1000))  # type: ignore[no-untyped-call]
        try:
            _, answer = pipeline.execute()
        except redis.ResponseError as refused:
            if _cannot_tell(refused):
                return False
            raise
    if not answer or int(answer[0]) < 1:
        raise ServiceError(
            f"Redis did not put its writes onto its disk within {SECONDS:g} s: look at its disk, and"
            " see that appendfsync is everysec or always"
        )
    return True


def _cannot_tell(refused: redis.ResponseError) -> bool:
    text = str(refused).lower()
    return "unknown command" in text or "appendonly is disabled" in text
