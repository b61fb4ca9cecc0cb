"""Writes in which an older row never replaces a newer one, whoever else writes the same key.

The rule runs on the server, in a script that reads a row's stored event time, compares, and writes
the whole row or nothing: nobody's command comes in between. Rows of one view in a hash that
several views share are compared with that view's time only. An equal time replaces: a late event
changes a session's state without moving its newest time. Rows of a session therefore name the
version of the state that they are of, and of one time the greater version stays: a consumer that
lost its partitions in the middle of a write cannot put back what its successor has moved on from.

A call takes many rows (on a Redis Cluster, where keys lie on several servers, one) and names the
fields once, which takes the server 13 microseconds a row of 16 features; an HSET without the rule
takes 7.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from feast_engine.connection import AsyncClient, SyncClient
from feast_engine.roundtrip import Stream, packed

SCRIPT = b"""\
-- KEYS: hashes. ARGV: seconds they live from now (0: for ever); cells of all rows, each after its
-- size; the field of the version, or nothing; names of the cells, the event time's first. Where
-- there is a version's field, each row ends with a cell of its own version, which is not written.
-- Returns how many rows were older.
local byte, sub, call = string.byte, string.sub, redis.call

local function varint(text, at)
  local value, complement, unit = 0, 0, 1
  for place = 1, 10 do
    local digit = byte(text, at)
    if not digit then return nil end
    at = at + 1
    if place < 10 then
      value = value + digit % 128 * unit
      complement = complement + (127 - digit % 128) * unit
      unit = unit * 128
    end
    if digit < 128 then
      -- ten digits: two's complement of a negative number, exact where that is small
      return place < 10 and value or -complement - 1, at
    end
  end
end

-- google.protobuf.Timestamp
local function moment(text)
  local parts, at = {0, 0}, 1
  while at <= #text do
    local field = byte(text, at)
    if field ~= 8 and field ~= 16 then return nil end
    parts[field / 8], at = varint(text, at + 1)
    if not at then return nil end
  end
  return parts[1], parts[2]
end

local function newer(stored, given)
  local seconds, nanos = moment(stored)
  if not seconds then return false end
  local other, rest = moment(given)
  return seconds > other or seconds == other and nanos > rest
end

-- of feast.types.Value
local function number(text)
  return text and byte(text, 1) == 32 and varint(text, 2) or nil
end

local function ahead(stored, given)
  local known, own = number(stored), number(given)
  return known and own and known > own
end

local write, last = {}, 2 * (#ARGV - 3)
for place = 4, #ARGV do write[2 * place - 7] = ARGV[place] end
local life, cells, version, at, older = ARGV[1], ARGV[2], ARGV[3], 1, 0
local whole = version == '' and last or last + 2
for _, key in ipairs(KEYS) do
  for place = 2, whole, 2 do
    local size = byte(cells, at)
    if size == 255 then
      local a, b, c, d = byte(cells, at + 1, at + 4)
      size, at = a + 256 * b + 65536 * c + 16777216 * d, at + 4
    end
    write[place] = sub(cells, at + 1, at + size)
    at = at + size + 1
  end
  local stored = call('HGET', key, write[1])
  local late
  if stored == write[2] then
    late = version ~= '' and ahead(call('HGET', key, version), write[whole])
  else
    late = stored and newer(stored, write[2])
  end
  if late then
    older = older + 1
  else
    call('HSET', key, unpack(write, 1, last))
    if life ~= '0' then call('EXPIRE', key, life) end
  end
end
return older
"""
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()

CALL_ROWS = 16
"""Rows of one call: others wait for the server while it runs, a quarter of a millisecond. More
rows would gain nothing: what the server frees only at the end of a call costs it more."""
CALL_BYTES = 1 << 18
_WINDOW_CALLS = 256
_WINDOW_BYTES = 1 << 22
_AHEAD = 2
_TRIES = 3
_LOAD = packed([b"SCRIPT", b"LOAD", SCRIPT])


@dataclass(frozen=True)
class Written:
    """Rows that were written, and rows that were not, because what is stored is newer."""

    rows: int = 0
    older: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.rows + other.rows, self.older + other.older)


@dataclass(frozen=True)
class Rows:
    """Rows of one view as they go to the server.

        names: the fields, the event time's first; keys: the hashes, n; cells: all rows one after the
        other, each cell after its size (`sized`); ends: n places where a row ends in `cells`;
    life: seconds until the hashes leave Redis, None: never; version: the field that names the
        version of what a row is of, or nothing. Where there is one, the last cell of each row is its
        own version, which is compared and not written.
    """

    names: Sequence[bytes]
    keys: Sequence[bytes]
    cells: bytes
    ends: Sequence[int]
    life: int | None
    version: bytes = b""


@dataclass(frozen=True)
class _Call:
    rows: int
    arguments: list[bytes]


def sized(cell: bytes) -> bytes:
    """A cell after its size, as the script reads it: a byte, or 255 and four bytes."""
    size = len(cell)
    return (_SIZES[size] if size < 255 else b"\xff" + size.to_bytes(4, "little")) + cell


_SIZES = tuple(bytes([size]) for size in range(255))


def write(client: SyncClient, batches: Iterable[Rows]) -> Written:
    """Write the rows; batches are asked for while the server works on those before.

    Raises redis.RedisError and OSError; some rows may then be written, and writing all again is
    harmless.
    """
    if not isinstance(client, redis.Redis):
        return _write_cluster(client, batches)
    with Stream(client) as stream:
        return _write_stream(stream, _windows(batches))


async def write_async(client: AsyncClient, batches: Iterable[Rows]) -> Written:
    """The same on asyncio, of a few rows: all calls are sent before the first reply is read."""
    one = not isinstance(client, redis.asyncio.Redis)
    calls = [call for rows in batches for call in _calls(rows, 1 if one else CALL_ROWS)]
    if not calls:
        return Written()
    replies = await _execute_async(client, calls)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        await client.script_load(SCRIPT.decode())
        replies = await _execute_async(client, calls)
    return _count(calls, replies)


async def _execute_async(client: Any, calls: Sequence[_Call]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command("EVALSHA", *call.arguments)
        return list(await pipeline.execute(raise_on_error=False))


def _write_cluster(client: Any, batches: Iterable[Rows]) -> Written:
    total = Written()
    calls = (call for rows in batches for call in _calls(rows, 1))
    while some := list(islice(calls, _WINDOW_CALLS * CALL_ROWS)):
        replies = _execute(client, some)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            client.script_load(SCRIPT.decode())  # on every server
            replies = _execute(client, some)
        total += _count(some, replies)
    return total


def _execute(client: Any, calls: Sequence[_Call]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command("EVALSHA", *call.arguments)
        return list(pipeline.execute(raise_on_error=False))


@dataclass
class _Window:
    """Calls that are sent together."""

    calls: list[_Call]
    tries: int = 1

    def payload(self) -> bytes:
        calls = b"".join([packed([b"EVALSHA", *call.arguments]) for call in self.calls])
        return _LOAD + calls if self.tries > 1 else calls


def _write_stream(stream: Stream, windows: Iterator[_Window]) -> Written:
    """A window whose server does not know the script (any more) is sent again behind the others,
    with the script before it: the rule makes the order of writes indifferent."""
    total = Written()
    waiting: deque[_Window] = deque()
    while True:
        window = next(windows, None)
        if window is not None:
            stream.send(window.payload())
            waiting.append(window)
        elif not waiting:
            return total
        if window is None or len(waiting) >= _AHEAD:
            window = waiting.popleft()
            replies = [stream.reply() for _ in range(len(window.calls) + (window.tries > 1))]
            if window.tries < _TRIES and any(isinstance(r, NoScriptError) for r in replies):
                window.tries += 1
                stream.send(window.payload())
                waiting.append(window)
            else:
                total += _count(window.calls, replies[-len(window.calls) :])


def _count(calls: Sequence[_Call], replies: Sequence[Any]) -> Written:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    older = sum(replies)
    return Written(sum(call.rows for call in calls) - older, older)


def _windows(batches: Iterable[Rows]) -> Iterator[_Window]:
    calls: list[_Call] = []
    size = 0
    for rows in batches:
        for call in _calls(rows, CALL_ROWS):
            calls.append(call)
            size += len(call.arguments[-len(rows.names) - 2])
            if len(calls) >= _WINDOW_CALLS or size >= _WINDOW_BYTES:
                yield _Window(calls)
                calls, size = [], 0
    if calls:
        yield _Window(calls)


def _calls(rows: Rows, most: int) -> Iterator[_Call]:
    """The arguments of EVALSHA for `most` rows at a time, fewer where rows are large."""
    life = b"%d" % (rows.life or 0)
    start = begin = 0
    while start < len(rows.keys):
        fit = bisect_right(rows.ends, begin + CALL_BYTES)
        stop = min(max(start + 1, fit), start + most, len(rows.keys))
        end = int(rows.ends[stop - 1])
        head = [SHA, b"%d" % (stop - start), *rows.keys[start:stop], life, rows.cells[begin:end]]
        yield _Call(stop - start, [*head, rows.version, *rows.names])
        start, begin = stop, end
