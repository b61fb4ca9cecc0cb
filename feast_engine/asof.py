"""The point-in-time join of `feast_engine.join_rule`: fast, exact, in bounded memory. No Feast here.

1. DuckDB reads the key and time columns of the history, drops rows that can answer nobody, turns
   keys into numbers and sorts the rows together with the moments that are asked for: by key, then
   by time, where a row's time is when it came to count, known = max(event, created). The sort
   spills to disk when memory is short.
2. One walk over that stream (`feast_engine.walk`) finds the row that answers each moment.
3. The features of the rows that answer something are fetched by row number.

Only where several rows of a key agree in both times are their features compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from contracts.errors import UsageError
from feast_engine.database import Limits, open_database
from feast_engine.join_keys import CodedKeys, coded_keys
from feast_engine.join_rule import MOMENT, JoinRule
from feast_engine.parquet import ROW, ParquetTable
from feast_engine.times import MICROSECOND, TimeRange, arrow_microseconds, microseconds
from feast_engine.walk import NEVER, Answers, Integers, Rows, walk

CHUNK_ROWS = 1_000_000
"""Sorted rows are walked so many at a time."""


def asof_join(
    entity: pa.Table,
    history: ParquetTable,
    rule: JoinRule,
    columns: Sequence[str] | None = None,
    moment: str = MOMENT,
    limits: Limits | None = None,
) -> pa.Table:
    """The columns (default: `rule.features`) of the row of the history that answers each row of
    `entity`, in its order, null where nothing answers.

    entity: the columns of `rule.keys` and the moments, any timestamp type (naive: UTC); other
    columns do no harm. UsageError for columns that are absent or of types that cannot match;
    ServiceError when a limit is reached.
    """
    wanted = list(rule.features if columns is None else columns)
    created = [rule.created] if rule.created is not None else []
    history.require([*rule.keys.values(), rule.event, *created, *rule.features, *wanted])
    asking = _Asking.of(entity, rule, moment, history.schema)
    with open_database(limits or Limits()) as connection:
        rows = _Join(connection, history, rule, asking).answers()
    found, place = np.unique(rows[rows >= 0], return_inverse=True)
    at = np.full(len(rows), -1, np.int64)
    at[rows >= 0] = place
    return history.take(found, wanted).take(pa.array(at, mask=at < 0))


@dataclass(frozen=True)
class _Asking:
    """The asking rows that can have an answer: their places, moments (microseconds) and keys."""

    count: int
    places: Integers
    moments: Integers
    keys: CodedKeys

    @classmethod
    def of(cls, entity: pa.Table, rule: JoinRule, moment: str, history: pa.Schema) -> _Asking:
        if moment not in entity.column_names:
            raise UsageError(f"the rows have no column {moment!r}, the moments that are asked for")
        keys = coded_keys(entity, rule.keys, history)
        times = arrow_microseconds(entity[moment], moment)
        places = np.flatnonzero((keys.codes >= 0) & times.is_valid().to_numpy())
        return cls(entity.num_rows, places, times.fill_null(0).to_numpy()[places], keys)


@dataclass(frozen=True)
class _Join:
    connection: Any
    history: ParquetTable
    rule: JoinRule
    asking: _Asking

    def answers(self) -> Integers:
        """The number of the row that answers each asking row, -1 where none does."""
        answers = Answers.none(self.asking.count)
        if len(self.asking.places):
            max_age = self.rule.max_age
            walk(self._sorted(), answers, None if max_age is None else max_age // MICROSECOND)
        if answers.tied:
            self._settle(answers)
        return answers.rows

    def _sorted(self) -> Iterator[Rows]:
        """The rows of the history that may answer somebody and the asking rows."""
        self._register()
        codes = self.asking.keys.codes[self.asking.places]
        asked = {"code": codes, "moment": self.asking.moments, "place": self.asking.places}
        self.connection.register("asked", pa.table(asked))
        known = "greatest(event, created)" if self.rule.hides_unknown else "event"
        query = f"""
            SELECT code, 2 * {known} AS time, event, created, number FROM ({self._past()})
            UNION ALL SELECT code::INTEGER, 2 * moment + 1, 0, 0, place FROM asked
            ORDER BY code, time
        """  # noqa: S608  # names are ours or quoted
        for batch in self.connection.sql(query).to_arrow_reader(CHUNK_ROWS):
            yield Rows.of([column.to_numpy() for column in batch.columns])

    def _register(self) -> None:
        columns = dict.fromkeys([*self.rule.keys.values(), self.rule.event])
        if self.rule.created is not None:
            columns[self.rule.created] = None
        self.history.register(self.connection, "history", list(columns), self._ranges())
        self.connection.register("keys", self.asking.keys.table)

    def _ranges(self) -> list[TimeRange]:
        """Times outside of which a row answers nobody, whatever its key."""
        high = int(self.asking.moments.max()) + 1
        low = None
        if self.rule.max_age is not None:
            low = int(self.asking.moments.min()) - self.rule.max_age // MICROSECOND
        ranges = [TimeRange(self.rule.event, low, high)]
        if self.rule.hides_unknown and self.rule.created is not None:
            ranges.append(TimeRange(self.rule.created, None, high))
        return ranges

    def _past(self) -> str:
        """SQL: code, event, created and number of the rows of the history that may answer."""
        rule, schema = self.rule, self.history.schema
        created = "NULL" if rule.created is None else microseconds(rule.created, schema)
        within = " AND ".join(each.sql(schema) for each in self._ranges())
        return f"""
            SELECT code, {microseconds(rule.event, schema)} AS event,
                coalesce({created}, {NEVER}) AS created, "{ROW}" AS number
            FROM history JOIN keys ON {self.asking.keys.condition} WHERE {within}
        """  # noqa: S608

    def _settle(self, answers: Answers) -> None:
        """Of several rows of a key that agree in both times, the one with the greatest values."""
        self._register()
        places, *group = (np.concatenate(parts) for parts in zip(*answers.tied, strict=True))
        tied = pa.table([places, *group], ["place", "code", "event", "created"])
        self.connection.register("tied", tied)
        self.connection.execute("""CREATE OR REPLACE TEMP TABLE groups AS
            SELECT *, row_number() OVER () AS tie FROM (SELECT DISTINCT code, event, created FROM tied)
        """)
        rows = self.connection.sql(f"""
            SELECT number, tie FROM ({self._past()}) JOIN groups USING (code, event, created)
            ORDER BY number
        """).to_arrow_table()  # noqa: S608
        values = self.history.take(rows["number"].to_numpy(), self.rule.features)
        for place, name in enumerate(self.rule.features):
            rows = rows.append_column(f"value{place}", values[name])
        self.connection.register("tied_rows", rows)
        order = ", ".join(f"value{place} DESC NULLS LAST" for place in range(len(values.columns)))
        winners = self.connection.sql(f"""
            SELECT tied.place, winner.number FROM tied JOIN groups USING (code, event, created)
            JOIN (SELECT tie, number FROM tied_rows QUALIFY
                row_number() OVER (PARTITION BY tie ORDER BY {order or "number"}) = 1) winner USING (tie)
        """).to_arrow_table()  # noqa: S608
        answers.rows[winners["place"].to_numpy()] = winners["number"].to_numpy()
