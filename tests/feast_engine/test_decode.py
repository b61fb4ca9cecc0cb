"""Compiled decoders, held equal to a reading of the same bytes that a person can follow."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ServiceError
from contracts.features import DType
from feast_engine import decode, layout
from feast_engine.decode import Cell, table_of

NUMBERS = st.integers(-(2**63), 2**63 - 1)
DAMAGE = st.builds(lambda raw, at, byte: raw[: at % 13] + byte + raw[at % 13 + 1 :],
                   st.binary(max_size=13), st.integers(0, 12), st.binary(max_size=2))  # fmt: skip


def cells_of(tags: bytes) -> st.SearchStrategy[Cell]:
    """Anything, and what begins as it should."""
    begun = st.builds(lambda tag, rest: bytes([tag]) + rest, st.sampled_from(tags), DAMAGE)
    number = st.builds(lambda value: layout.encode_column(DType.int64, [value])[0], NUMBERS)
    real = st.builds(lambda value: b"\x35" + struct.pack("<f", value), st.floats(width=32))
    return st.none() | st.binary(max_size=14) | begun | number | real


def varint(raw: bytes) -> tuple[int, bytes]:
    value = 0
    for place, byte in enumerate(raw[:10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value % 2**64, raw[place + 1 :]
    raise ValueError


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def float_of(cell: Cell) -> float:
    if not cell:
        return float("nan")
    if cell[0] != 0x35:
        raise ValueError
    try:
        value: float = struct.unpack("<f", cell[1:])[0]
    except struct.error:
        raise ValueError from None
    return value


def int64_of(cell: Cell) -> int:
    if not cell:
        return 0
    value, rest = varint(cell[1:])
    if cell[0] != 0x20 or rest:
        raise ValueError
    return signed(value)


def milliseconds_of(cell: Cell) -> int:
    if cell is None:
        return -1
    parts = {8: 0, 16: 0}
    while cell:
        tag = cell[0]
        parts[tag], cell = varint(cell[1:])
    seconds = signed(parts[8])
    if abs(seconds) >= 2**50:
        raise ValueError
    return seconds * 1000 + signed(parts[16]) // 1_000_000


def same(cells: list[Cell], one: Any, many: Any) -> None:
    try:
        expected = list(map(one, cells))
    except ValueError:
        with pytest.raises(ServiceError, match="another type"):
            many(cells)
    else:
        np.testing.assert_array_equal(many(cells), expected)


@given(st.lists(cells_of(b"\x35"), max_size=4))
def test_floats_are_read(cells: list[Cell]) -> None:
    same(cells, float_of, lambda cells: decode.decode_column(DType.float32, cells))


@given(st.lists(cells_of(b"\x20"), max_size=4))
def test_numbers_are_read(cells: list[Cell]) -> None:
    same(cells, int64_of, lambda cells: decode.decode_column(DType.int64, cells))


@given(st.lists(cells_of(b"\x08\x10"), max_size=4))
def test_event_times_are_read(cells: list[Cell]) -> None:
    def read(cells: list[Cell]) -> Any:
        return decode.decode_timestamps(table_of([[cell] for cell in cells], 1), 0)

    same(cells, milliseconds_of, read)


@given(st.lists(st.lists(st.none() | st.binary(max_size=5), min_size=3, max_size=3), max_size=4))
def test_a_table_holds_the_cells_of_its_rows(rows: list[list[Cell]]) -> None:
    fields = [2, 0]
    expected = [row[field] for field in fields for row in rows]
    assert table_of(rows, 3).cells(fields) == expected


def test_rows_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 cells"):
        table_of([[b"a", b"b"], [b"a"]], 2)
