"""A stack of a benchmark's own: real servers, supervised, on free ports in a temporary folder."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.settings import Settings

PORTS = tuple(name for name in Settings.model_fields if name.endswith("_port"))


@contextlib.contextmanager
def private_stack(only: Sequence[str], folder: Path | None = None) -> Iterator[Settings]:
    """Settings of a running stack with these services; it is stopped and deleted at the end.

    `folder`: where its temporary folder is made; None: where the system has such folders.
    """
    from local_stack import stack

    with tempfile.TemporaryDirectory(prefix="nextclick-benchmark-", dir=folder) as home:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        settings = Settings.model_validate({"home": Path(home), **ports})
        try:
            stack.up(settings, only=only, report=say)
            yield settings
        finally:
            stack.down(settings)


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on now, each another one."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
