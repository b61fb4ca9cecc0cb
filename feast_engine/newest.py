"""Rows of a table without anybody asking for keys: the newest of each key, and all of a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from feast_engine.asof import asof_join
from feast_engine.database import Limits, open_database, quoted
from feast_engine.join_rule import JoinRule
from feast_engine.parquet import ParquetTable
from feast_engine.times import EPOCH, MICROSECOND, TimeRange

_MOMENT = "the end of the time"
"""A column name that no table has."""


def newest_rows(
    history: ParquetTable, rule: JoinRule, end: datetime, columns: Sequence[str], limits: Limits
) -> pa.Table:
    """The columns of the row that answers at `end`, for each key of the history that has one.

    Rows with a null key answer nobody.
    """
    keys = _keys(history, rule, end, limits)
    asking = keys.append_column(_MOMENT, pa.array([end] * keys.num_rows, pa.timestamp("us", "UTC")))
    wanted = list(dict.fromkeys([*columns, *rule.keys.values(), rule.event]))
    rows = asof_join(asking, history, rule, wanted, _MOMENT, limits)
    return rows.filter(pc.is_valid(rows[rule.event])).select(list(columns))


def _keys(history: ParquetTable, rule: JoinRule, end: datetime, limits: Limits) -> pa.Table:
    """Each key that has a row within the time, once."""
    names = list(rule.keys.values())
    if not names:
        return pa.table({"one": [True]})
    low = None if rule.max_age is None else end - rule.max_age
    ranges = [_range(rule.event, low, end)]
    listed = ", ".join(quoted(name) for name in names)
    with open_database(limits) as connection:
        history.register(connection, "history", [*names, rule.event], ranges)
        query = f"SELECT DISTINCT {listed} FROM history WHERE {ranges[0].sql(history.schema)}"  # noqa: S608
        found: pa.Table = connection.sql(query).to_arrow_table()
    return found.rename_columns(list(rule.keys))


def rows_between(
    history: ParquetTable,
    columns: Sequence[str],
    event: str,
    start: datetime | None,
    end: datetime | None,
    limits: Limits,
) -> pa.Table:
    """The columns of every row whose event time lies from `start` to `end`, both included."""
    ranges = [] if start is None and end is None else [_range(event, start, end)]
    listed = ", ".join(quoted(name) for name in columns)
    within = " AND ".join(each.sql(history.schema) for each in ranges) or "true"
    with open_database(limits) as connection:
        history.register(connection, "history", list(dict.fromkeys([*columns, event])), ranges)
        found: pa.Table = connection.sql(
            f"SELECT {listed} FROM history WHERE {within}"  # noqa: S608
        ).to_arrow_table()
    return found.cast(pa.schema([history.schema.field(name) for name in columns]))


def _range(event: str, start: datetime | None, end: datetime | None) -> TimeRange:
    high = None if end is None else _microseconds(end) + 1
    return TimeRange(event, None if start is None else _microseconds(start), high)


def _microseconds(time: datetime) -> int:
    return (in_utc(time) - EPOCH) // MICROSECOND


def in_utc(time: datetime) -> datetime:
    """A time without a zone is UTC. UsageError for what is no time."""
    if not isinstance(time, datetime):
        raise UsageError(f"got {time!r}, expected a datetime")
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
