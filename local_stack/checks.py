"""What `up` looks at before it starts anything: each problem is one line that says what to do."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from contracts.errors import ServiceError
from contracts.settings import PREFIX

FREE_BYTES = 10**9


def check_disk(folder: Path, needed: int = FREE_BYTES) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ServiceError(
            f"the disk of {folder} has {free / 1e9:.2f} GB free, {needed / 1e9:.0f} GB are needed:"
            f" free some space, or set {PREFIX}HOME to a folder elsewhere"
        )


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """`ports` by setting. ServiceError names the first that is taken, its holder and the setting."""
    given: dict[int, str] = {}
    for setting, port in ports.items():
        if port in given:
            raise ServiceError(f"{_variable(setting)} and {_variable(given[port])} are both {port}")
        given[port] = setting
        if not is_free(host, port):
            raise ServiceError(
                f"port {port} of {host} is taken by {holder(port)}: end that, or set"
                f" {_variable(setting)} to another port"
            )


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                name = psutil.Process(connection.pid).name()
                return f"process {connection.pid} ({name})"
    except psutil.Error:
        pass
    return "another process"


def _variable(setting: str) -> str:
    return PREFIX + setting.upper()
