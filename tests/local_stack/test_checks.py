"""What stops `up` before it starts anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import ServiceError
from local_stack.checks import check_disk, check_ports, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_taken_port_names_port_setting_and_holder(taken: int) -> None:
    with pytest.raises(ServiceError) as caught:
        check_ports("127.0.0.1", {"redis_port": taken})
    text = str(caught.value)
    assert f"port {taken} of 127.0.0.1" in text
    assert "NEXTCLICK_REDIS_PORT" in text
    assert f"process {os.getpid()}" in text


def test_free_ports_pass(taken: int) -> None:
    assert not is_free("127.0.0.1", taken)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
    check_ports("127.0.0.1", {"redis_port": port})


def test_one_port_for_two_services_names_both_settings() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
    with pytest.raises(ServiceError, match="NEXTCLICK_API_PORT and NEXTCLICK_REDIS_PORT are both"):
        check_ports("127.0.0.1", {"redis_port": port, "api_port": port})


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    check_disk(tmp_path, needed=1)
    with pytest.raises(ServiceError, match="free some space, or set NEXTCLICK_HOME"):
        check_disk(tmp_path, needed=10**18)
