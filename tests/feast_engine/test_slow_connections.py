"""A server that is slow to greet: what is given up by its reader must not begin anew each time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

from feast_engine.config import OnlineConfig
from feast_engine.connection import AsyncClient, connect_async_to
from feast_engine.roundtrip import Many, exchange_async

GREETING_SECONDS = 0.1
"""What the first reply of a connection takes; every later one comes at once."""
BUDGET_SECONDS = 0.02


class SlowToGreet:
    """Answers every command with +OK."""

    def __init__(self) -> None:
        self.open: list[asyncio.StreamWriter] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        await asyncio.sleep(GREETING_SECONDS)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                writer.write(b"+OK\r\n")
                await writer.drain()


async def read(client: AsyncClient) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(BUDGET_SECONDS):
        async with aclosing(exchange_async(client, [Many(b"GET", [b"k"], [])])) as answers:
            async for replies in answers:
                found.append(replies)
    return found


async def tries_until_answered(server: SlowToGreet, most: int) -> int:
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = connect_async_to(OnlineConfig("p", f"127.0.0.1:{port}", False, None))
    try:
        for number in range(1, most + 1):
            with suppress(TimeoutError):
                assert await read(client) == [[b"OK"]]
                return number
        return most + 1
    finally:
        await asyncio.sleep(2 * GREETING_SECONDS)  # those that are still being made
        await client.aclose()
        listening.close()
        for writer in server.open:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def test_a_connection_that_outlasts_a_budget_serves_a_later_read() -> None:
    server = SlowToGreet()
    tries = asyncio.run(tries_until_answered(server, 30))
    assert 1 < tries <= 15
    assert len(server.open) < 15
