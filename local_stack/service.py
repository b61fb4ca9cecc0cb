"""What a supervised service is, and the small helpers that its definition needs."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.errors import ServiceError

PROBE_SECONDS = 3.0
"""Time limit of one call of a probe."""

BIN = Path(sys.executable).parent
"""Programs of the product's environment."""


def nothing() -> None:
    """For a service that needs no preparation."""


@dataclass(frozen=True)
class Service:
    """One local process that the supervisor starts, probes and restarts.

    `needs` are the services that have to be ready before its first start. `probe` does what a client does and raises when the service does not answer; `prepare` renders
    files before each start; `ports` maps the setting to the port; `hint` says what to do when the
    service does not start.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    ports: Mapping[str, int]
    url: str
    version: str
    probe: Callable[[], None]
    prepare: Callable[[], None] = nothing
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 60.0
    stop_seconds: float = 10.0
    hint: str = ""


def http_call(
    host: str,
    port: int,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The body of a 200 answer; ServiceError for any other, OSError where no one answers in time.

    With a `body` it is a POST of that value as JSON.
    """
    content = None if body is None else json.dumps(body)
    method = "GET" if body is None else "POST"
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
    try:
        sent = {"content-type": "application/json", **(headers or {})}
        connection.request(method, path, body=content, headers=sent)
        answer = connection.getresponse()
        received = answer.read()
    except http.client.HTTPException as error:
        raise ServiceError(f"{path} answered no HTTP: {error!r}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        text = received[:300].decode(errors="replace")
        raise ServiceError(f"{method} {path} answered {answer.status}: {text}")
    return received


def http_json(host: str, port: int, path: str, body: Any = None) -> Any:
    return json.loads(http_call(host, port, path, body))


def check_port(host: str, port: int) -> None:
    """OSError when no one listens."""
    socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
