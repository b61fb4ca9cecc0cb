"""Replies that come together, in pieces, refused and given up; sent by a server of the tests' own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, suppress
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from feast_engine import roundtrip
from feast_engine.connection import connect_async_to, connect_to
from feast_engine.roundtrip import Many, exchange, exchange_async, packed
from tests.feast_engine.lone_server import LoneServer

Read = Callable[[Sequence[Many]], list[list[Any]]]


class Echo(LoneServer):
    """Answers a command by its key and None, the key `refuse` by an error. Answers wait until
    `together` of them lie there, and go out in bits of `bit` bytes."""

    def __init__(self, together: int, bit: int) -> None:
        self.together, self.bit = together, bit
        super().__init__()

    def _talk(self, peer: socket.socket) -> None:
        answers: list[bytes] = []
        with suppress(ConnectionError), peer, peer.makefile("rb") as lines:
            while head := lines.readline():
                words = [self._word(lines) for _ in range(int(head[1:]))]
                setup = words[0] in (b"CLIENT", b"HELLO")
                answers.append(b"+OK\r\n" if setup else self._answer(words[1]))
                if setup or len(answers) == self.together:
                    self._send(peer, b"".join(answers))
                    answers.clear()

    @staticmethod
    def _word(lines: Any) -> bytes:
        word: bytes = lines.read(int(lines.readline()[1:]) + 2)[:-2]
        return word

    @staticmethod
    def _answer(key: bytes) -> bytes:
        if key == b"refuse":
            return b"-ERR refused\r\n"
        return b"*2\r\n$%d\r\n%b\r\n$-1\r\n" % (len(key), key)

    def _send(self, peer: socket.socket, answers: bytes) -> None:
        for start in range(0, len(answers), self.bit):
            peer.sendall(answers[start : start + self.bit])


@pytest.fixture(params=[(1, 1 << 20), (6, 1 << 20), (6, 7)], ids=["single", "together", "bits"])
def server(request: Any) -> Iterator[Echo]:
    echo = Echo(*request.param)
    yield echo
    echo.listening.close()


@pytest.fixture(params=["sync", "asyncio", "another parser"])
def read(server: Echo, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    if request.param == "another parser":
        monkeypatch.setattr(roundtrip, "_arrived", lambda *_: [])
    if request.param != "asyncio":
        with connect_to(server.config, 2.0) as client:
            yield lambda pieces: _all(client, pieces)
        return
    with asyncio.Runner() as runner:
        own = connect_async_to(server.config, 2.0)
        yield lambda pieces: runner.run(_all_async(own, pieces))
        runner.run(own.aclose())


def _all(client: Any, pieces: Sequence[Many]) -> list[list[Any]]:
    with closing(exchange(client, pieces)) as answers:
        return list(answers)


async def _all_async(client: Any, pieces: Sequence[Many]) -> list[list[Any]]:
    async with asyncio.timeout(2.0), aclosing(exchange_async(client, pieces)) as answers:
        return [replies async for replies in answers]


def many(*keys: bytes) -> Many:
    return Many(b"HMGET", keys, [b"field"])


def test_each_piece_gets_its_own_replies(server: Echo, read: Read) -> None:
    for _ in range(3):
        found = read([many(b"a", b"b"), many(), many(b"c"), many(b"d", b"e", b"f")])
        assert [[key for key, _ in piece] for piece in found] == [
            [b"a", b"b"], [], [b"c"], [b"d", b"e", b"f"],
        ]  # fmt: skip
    assert server.connections == 1


@pytest.mark.parametrize("place", [0, 3, 5])
def test_after_a_refusal_no_reply_is_taken_for_anothers(
    server: Echo, read: Read, place: int
) -> None:
    keys = [b"a", b"b", b"c", b"d", b"e", b"f"]
    keys[place] = b"refuse"
    with pytest.raises(redis.ResponseError, match="refused"):
        read([many(*keys[:4]), many(*keys[4:])])
    later = [b"g", b"h", b"i", b"j", b"k", b"l"]
    assert [key for key, _ in read([many(*later)])[0]] == later
    assert server.connections == 2


def test_what_is_left_unread_is_not_read_by_the_next(server: Echo) -> None:
    with connect_to(server.config, 2.0) as client:
        with closing(exchange(client, [many(b"a", b"b"), many(b"c", b"d", b"e", b"f")])) as answers:
            assert next(answers)[0][0] == b"a"
        keys = [b"g", b"h", b"i", b"j", b"k", b"l"]
        assert [key for key, _ in _all(client, [many(*keys)])[0]] == keys


KEYS = st.lists(st.binary(max_size=300), max_size=6)


@given(keys=KEYS, arguments=KEYS, end=st.binary(max_size=12))
def test_keys_given_in_parts_are_packed_as_redis_packs_them(
    keys: list[bytes], arguments: list[bytes], end: bytes
) -> None:
    def head(size: int) -> bytes:
        return b"id%d:" % size

    command = Many(b"HMGET", keys, arguments, head, end)
    whole = [head(len(key)) + key + end for key in keys]
    assert command.whole() == whole
    assert roundtrip._packed(command) == b"".join(packed([b"HMGET", k, *arguments]) for k in whole)


def test_replies_that_lie_there_are_taken_at_once() -> None:
    """From the parser that redis-py has here: by another, reads would be right but slow."""
    echo = Echo(6, 1 << 20)
    with closing(echo.listening), connect_to(echo.config, 2.0) as client:
        connection: Any = client.connection_pool.get_connection()
        connection.send_packed_command([roundtrip._packed(many(*[b"a"] * 6))])
        assert connection.read_response(disable_decoding=True) == [b"a", None]
        assert roundtrip._arrived(connection, 3) == [[b"a", None]] * 3
        assert roundtrip._arrived(connection, 9) == [[b"a", None]] * 2
