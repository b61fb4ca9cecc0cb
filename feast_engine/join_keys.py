"""Keys of a join as numbers: each different key that is asked for gets one, from 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from feast_engine.database import quoted

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CodedKeys:
    """`codes`: of each asking row, -1 where a key is null. `table`: the columns key0, key1 ... and
    `code` (int32: half the sorting), one row a key. `condition`: SQL that compares them with the columns of `history`."""

    codes: Integers
    table: pa.Table
    condition: str


def coded_keys(entity: pa.Table, keys: Mapping[str, str], history: pa.Schema) -> CodedKeys:
    """keys: column of the asking side → column of the history. No keys: every row has the code 0.

    UsageError where a column is absent or values of its type can never equal the history's.
    """
    lost = [name for name in keys if name not in entity.column_names]
    if lost:
        raise UsageError(f"the rows have no column {lost[0]!r}, which the join needs as a key")
    columns, conditions = {}, []
    for place, (asking, stored) in enumerate(keys.items()):
        kind = _plain(history.field(stored).type)
        columns[f"key{place}"] = _comparable(entity[asking], kind, asking)
        cast = f"CAST(history.{quoted(stored)} AS BIGINT)"
        column = cast if pa.types.is_integer(kind) else f"history.{quoted(stored)}"
        conditions.append(f"keys.key{place} = {column}")
    codes = _codes(entity.num_rows, list(columns.values()))
    firsts = _firsts(codes)
    numbers = pa.array(np.arange(len(firsts), dtype=np.int32))
    table = pa.table({name: column.take(firsts) for name, column in columns.items()})
    table = table.append_column("code", numbers) if columns else pa.table({"code": numbers})
    return CodedKeys(codes, table, " AND ".join(conditions) or "true")


def _codes(rows: int, columns: list[pa.ChunkedArray]) -> Integers:
    """The code of each row: equal where all columns are, -1 where one is null."""
    if not columns:
        return np.zeros(rows, np.int64)
    codes = pa.array(np.zeros(rows, np.int64))
    for column in columns:
        encoded = column.combine_chunks().dictionary_encode()
        pairs = pc.add(pc.multiply(codes, len(encoded.dictionary)), encoded.indices)
        # dense again after each column: a product of two counts of rows fits 64 bits
        codes = pairs.dictionary_encode().indices.cast(pa.int64())
    return np.asarray(codes.fill_null(-1).to_numpy())


def _firsts(codes: Integers) -> Integers:
    """Of each code the first row that has it."""
    rows = np.flatnonzero(codes >= 0)[::-1]
    firsts = np.empty(codes.max(initial=-1) + 1, np.int64)
    firsts[codes[rows]] = rows  # the last one that is written stays
    return firsts


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _comparable(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.ChunkedArray:
    """The asking column with values that DuckDB compares with the history's without a loss."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count == len(column):  # pandas gives a column of nothing any type
        return pa.chunked_array([pa.nulls(len(column), kind)])
    if pa.types.is_integer(kind):
        return _whole_numbers(column, name)
    if _is_text(kind) != _is_text(column.type):
        raise _unlike(name, column.type, kind)
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _unlike(name, column.type, kind) from None


def _whole_numbers(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """As int64. pandas makes floats of a column with gaps: what is no whole number matches nothing."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.equal(column, pc.trunc(column)), column, None)
    elif not pa.types.is_integer(column.type):
        raise _unlike(name, column.type, "a whole number")
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise UsageError(f"the key column {name!r}: {error}") from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _unlike(name: str, got: pa.DataType, expected: Any) -> UsageError:
    return UsageError(
        f"the key column {name!r} has the type {got}, the table's is {expected}: "
        "cast it, no value would match"
    )
