"""A stack of its own for the tests: free ports, a temporary state folder, the checkout's tools."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import Settings
from local_stack import stack
from local_stack.services import INFRASTRUCTURE

PORTS = tuple(name for name in Settings.model_fields if name.endswith("_port"))


def free_ports(count: int) -> list[int]:
    """Ports that no one listens on now, each another one."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def free_settings(folder: Path) -> Settings:
    """Settings of a stack of one's own in `folder`."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    home = folder / "home"
    return Settings.model_validate({"home": home, "models": home / "models", **ports})


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Redis, Kafka, MLflow and Triton, up and empty; Triton's models are in `settings.models`."""
    settings = free_settings(tmp_path_factory.mktemp("stack"))
    try:
        stack.up(settings, only=INFRASTRUCTURE, report=print)
        yield settings
    finally:
        stack.down(settings)
