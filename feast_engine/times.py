"""Times of tables in microseconds since 1970 UTC: in SQL, in Arrow, and as what a table can skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from feast_engine.database import quoted

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_NAMED = range(-30_610_224_000_000_000, 253_402_300_800_000_000)
"""Microseconds of the years 1000 to 9999, which a literal can name."""


@dataclass(frozen=True)
class TimeRange:
    """Rows whose time lies in [low, high), microseconds since 1970; null times do not."""

    column: str
    low: int | None
    high: int | None

    def sql(self, schema: pa.Schema) -> str:
        """The condition, on the column itself where it can be, so that row groups are skipped."""
        kind = schema.field(self.column).type
        bounds = [(">=", self.low), ("<", self.high)]
        conditions = [f"{quoted(self.column)} IS NOT NULL"]
        for sign, bound in bounds:
            if bound is None:
                continue
            if _exact(kind) and bound in _NAMED:
                conditions.append(f"{quoted(self.column)} {sign} {_literal(bound, kind)}")
            else:
                conditions.append(f"{microseconds(self.column, schema)} {sign} {bound}")
        return " AND ".join(conditions)

    @staticmethod
    def expression(ranges: Sequence[TimeRange], schema: pa.Schema) -> Any:
        """The same of several for a pyarrow data set, as far as it can say them; None: all."""
        whole = None
        for each in ranges:
            kind = schema.field(each.column).type
            if not _exact(kind):
                continue
            for bound, test in ((each.low, pc.greater_equal), (each.high, pc.less)):
                if bound is not None and bound in _NAMED:
                    part = test(pc.field(each.column), _scalar(bound, kind))
                    whole = part if whole is None else whole & part
        return whole


def _exact(kind: pa.DataType) -> bool:
    """Whether a time in microseconds compares with the column as it stands."""
    return bool(pa.types.is_timestamp(kind)) and kind.unit != "ns"


def _literal(time: int, kind: pa.DataType) -> str:
    text = f"{EPOCH + time * MICROSECOND:%Y-%m-%d %H:%M:%S.%f}"
    return f"TIMESTAMPTZ '{text}+00'" if kind.tz else f"TIMESTAMP '{text}'"


def _scalar(time: int, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(time, pa.timestamp("us", kind.tz))


def microseconds(column: str, schema: pa.Schema) -> str:
    """SQL for a time column's microseconds since 1970. UsageError where it is no time."""
    name, kind = quoted(column), schema.field(column).type
    if pa.types.is_date(kind):
        return f"epoch_us(CAST({name} AS TIMESTAMP))"
    if not pa.types.is_timestamp(kind):
        raise UsageError(f"the column {column!r} has the type {kind}, expected a timestamp")
    if kind.unit == "ns":  # a cast would round up, and a division cut towards 1970
        return f"((epoch_ns({name}) - ((epoch_ns({name}) % 1000) + 1000) % 1000) // 1000)"
    return f"epoch_us({name})" if kind.tz else f"epoch_us(CAST({name} AS TIMESTAMP))"


def arrow_microseconds(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A time column of Arrow as int64 microseconds since 1970, nulls kept, finer parts cut off."""
    kind = column.type
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us")).cast(pa.int64())
    if not pa.types.is_timestamp(kind):
        raise UsageError(f"the column {name!r} has the type {kind}, expected a timestamp")
    if kind.unit == "ns":
        return pc.cast(
            pc.floor_temporal(column, unit="microsecond"), pa.timestamp("us", kind.tz)
        ).cast(pa.int64())
    return column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
