"""Tables of cells taken from a connection: with the replies in bits, refused, and cut off."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest
import redis

from feast_engine import roundtrip
from feast_engine.connection import connect_async_to, connect_to
from feast_engine.decode import Table
from feast_engine.roundtrip import Many, exchange_tables, exchange_tables_async
from tests.feast_engine.lone_server import LoneServer

Read = Callable[[list[Many]], list[Table]]
PIECES = [Many(b"HMGET", [b"a", b"b"], [b"f", b"g"]), Many(b"HMGET", [b"c"], [b"f", b"g"])]
WHOLE = b"*2\r\n$1\r\nx\r\n$-1\r\n"


class Server(LoneServer):
    """Answers all that was asked once it has come: by `answer`, in bits, with a pause between them;
    hangs up after it, unless it is to stay."""

    def __init__(self) -> None:
        self.answer, self.bit, self.stays = WHOLE * 3, 1 << 20, True
        super().__init__()

    def _talk(self, peer: socket.socket) -> None:
        asked = 0
        with peer, peer.makefile("rb") as lines:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while head := lines.readline():
                words = [lines.read(int(lines.readline()[1:]) + 2) for _ in range(int(head[1:]))]
                if words[0] != b"HMGET\r\n":
                    peer.sendall(b"+OK\r\n")
                    continue
                asked += 1
                if asked % 3 == 0:
                    for start in range(0, len(self.answer), self.bit):
                        peer.sendall(self.answer[start : start + self.bit])
                    if not self.stays:
                        return


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server()
    with closing(own.listening):
        yield own


@pytest.fixture(params=["sync", "asyncio", "redis-py's parser"])
def read(server: Server, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    if request.param == "redis-py's parser":
        monkeypatch.setattr(roundtrip, "_plain", lambda _: False)
    if request.param != "asyncio":
        with connect_to(server.config, 1.0) as client:
            yield lambda pieces: _all(client, pieces)
        return
    with asyncio.Runner() as runner:
        own = connect_async_to(server.config, 1.0)
        yield lambda pieces: runner.run(_all_async(own, pieces))
        runner.run(own.aclose())


def _all(client: Any, pieces: list[Many]) -> list[Table]:
    with closing(exchange_tables(client, pieces)) as answers:
        return list(answers)


async def _all_async(client: Any, pieces: list[Many]) -> list[Table]:
    async with asyncio.timeout(1.0), aclosing(exchange_tables_async(client, pieces)) as answers:
        return [table async for table in answers]


@pytest.mark.parametrize("bit", [1 << 20, 7, 1])
def test_each_piece_gets_its_own_cells(server: Server, read: Read, bit: int) -> None:
    server.bit = bit
    for _ in range(3):
        found = read(PIECES)
        assert [table.cells([0, 1]) for table in found] == [
            [b"x", b"x", None, None],
            [b"x", None],
        ]
    assert server.connections == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_after_a_refusal_nothing_is_left_for_the_next(
    server: Server, read: Read, place: int
) -> None:
    answers = [WHOLE] * 3
    answers[place] = b"-ERR refused\r\n"
    server.answer = b"".join(answers)
    with pytest.raises(redis.ResponseError, match="refused"):
        read(PIECES)
    server.answer = WHOLE * 3
    assert read(PIECES)[1].cells([0]) == [b"x"]
    assert server.connections == 2


@pytest.mark.parametrize("end", [0, 1, 17, 20, len(WHOLE) * 3 - 1])
def test_a_server_that_dies_in_the_middle_is_told(server: Server, read: Read, end: int) -> None:
    server.answer, server.stays = (WHOLE * 3)[:end], False
    with pytest.raises((redis.ConnectionError, OSError)):
        read(PIECES)
    server.answer, server.stays = WHOLE * 3, True
    assert read(PIECES)[1].cells([0]) == [b"x"]


def test_a_server_that_hangs_in_the_middle_costs_the_time_limit(server: Server, read: Read) -> None:
    server.answer = WHOLE * 2
    with pytest.raises((redis.TimeoutError, TimeoutError)):
        read(PIECES)
    server.answer = WHOLE * 3
    assert read(PIECES)[1].cells([0]) == [b"x"]
    assert server.connections == 2
