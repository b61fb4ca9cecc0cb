"""Replies that come in bits of any size, and such as are none."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from feast_engine.decode import Cell, Table
from feast_engine.replies import Incoming

Rows = list[list[Cell]]


def resp(rows: Rows) -> bytes:
    return b"".join(b"*%d\r\n" % len(row) + b"".join(map(bulk, row)) for row in rows)


def bulk(cell: Cell) -> bytes:
    return b"$-1\r\n" if cell is None else b"$%d\r\n%b\r\n" % (len(cell), cell)


def complete(incoming: Incoming) -> bool:
    return incoming.complete(redis.ResponseError)


def taken(incoming: Incoming, bits: list[bytes], rows: int, fields: int, into: bool) -> Table:
    """What `bits` hold, which are used up as far as needed; the first bit may lie there before."""
    incoming.expect(rows, fields)
    while not complete(incoming):
        bit = bits.pop(0)
        if into:
            incoming.room()[: len(bit)] = bit
            incoming.received(len(bit))
        else:
            incoming.feed(bit)
    return incoming.table()


def rows_in(table: Table, fields: int) -> Rows:
    columns = [table.cells([field]) for field in range(fields)]
    return [list(row) for row in zip(*columns, strict=True)]


CELLS = st.none() | st.binary(max_size=30) | st.sampled_from([b"\r\n", b"$-1\r\n", b"-ERR\r\n"])


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Rows], int]:
    fields = draw(st.integers(1, 4))
    row = st.lists(CELLS, min_size=fields, max_size=fields)
    return draw(st.lists(st.lists(row, max_size=5), min_size=1, max_size=3)), fields


def split(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(conversations(), st.lists(st.integers(0, 10_000)), st.booleans())
def test_replies_are_the_same_however_they_come(
    conversation: tuple[list[Rows], int], places: list[int], into: bool
) -> None:
    """Bits may hold the end of one piece and the beginning of the next."""
    pieces, fields = conversation
    bits = split(b"".join(map(resp, pieces)), places)
    incoming = Incoming()
    tables = [taken(incoming, bits, len(rows), fields, into) for rows in pieces]
    assert [rows_in(table, fields) for table in tables] == pieces
    assert not bits
    incoming.check_ended()


def test_every_byte_may_come_alone() -> None:
    rows: Rows = [[b"a" * 300, None], [b"", b"\r\n"]]
    data = resp(rows)
    for place in range(len(data) + 1):
        incoming = Incoming()
        bits = [bit for bit in (data[:place], data[place:]) if bit]
        assert rows_in(taken(incoming, bits, 2, 2, False), 2) == rows
    incoming = Incoming()
    assert rows_in(taken(incoming, [bytes([b]) for b in data], 2, 2, True), 2) == rows


def test_more_than_was_guessed_finds_room() -> None:
    rows: Rows = [[bytes([number]) * 100_000] for number in range(20)]
    bits = split(resp(rows), list(range(0, 2_100_000, 10_000)))
    assert rows_in(taken(Incoming(), bits, 20, 1, True), 1) == rows


@pytest.mark.parametrize("bit", [1, 7, 1000])
def test_a_refusal_among_replies_is_raised_with_its_text(bit: int) -> None:
    data = resp([[b"a"]]) + b"-ERR no such thing\r\n" + resp([[b"b"]])
    bits = [data[start : start + bit] for start in range(0, len(data), bit)]
    with pytest.raises(redis.ResponseError, match=r"no such thing$"):
        taken(Incoming(), bits, 3, 1, False)


@pytest.mark.parametrize(
    "data",
    [
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*-1\r\n", b"+OK\r\n", b":1\r\n", b"*1\r\n:1\r\n",
        b"*1\r\n*1\r\n$1\r\na\r\n", b"*1\r\n-ERR\r\n", b"*1\r\n$-2\r\n", b"*1\r\n$1\r\nab\r\n",
        b"*x\r\n", b"*1\rx", b"*\r\n", b"*1\r\n$99999999999\r\n", b"$1\r\na\r\n", b"%1\r\n",
    ],
)  # fmt: skip
def test_other_replies_are_told(data: bytes) -> None:
    for start in (0, len(data)):
        bits = [data] if not start else [bytes([byte]) for byte in data]
        with pytest.raises(redis.InvalidResponse, match="expected arrays of 1 strings, got b'"):
            taken(Incoming(), bits, 1, 1, False)


@given(st.binary(max_size=60))
def test_any_bytes_are_replies_or_not_yet_or_told(data: bytes) -> None:
    incoming = Incoming()
    incoming.expect(2, 2)
    incoming.feed(data or b"*")
    with suppress(redis.InvalidResponse, redis.ResponseError):
        whole = complete(incoming)
        assert not whole or rows_in(incoming.table(), 2)


def test_a_closed_connection_and_bytes_that_nobody_expects_are_told() -> None:
    incoming = Incoming()
    incoming.expect(1, 1)
    with pytest.raises(redis.ConnectionError, match="closed"):
        incoming.feed(b"")
    taken(incoming, [resp([[b"a"]]) + b"$1\r\nb\r"], 1, 1, False)
    with pytest.raises(redis.InvalidResponse, match="6 bytes after"):
        incoming.check_ended()
