"""The rows that are asked for, as Feast's users give them: a frame with keys and moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from feast_engine.join_rule import MOMENT


@dataclass(frozen=True)
class EntityRows:
    """`table`: the frame, every row and column in its place. `moment`: the column of the moments."""

    table: pa.Table
    moment: str

    @property
    def span(self) -> tuple[datetime | None, datetime | None]:
        """The first and the last moment."""
        found = pc.min_max(self.table[self.moment].cast(pa.timestamp("us", "UTC"), safe=False))
        first, last = found["min"].as_py(), found["max"].as_py()
        return first, last


def entity_rows(frame: Any) -> EntityRows:
    """UsageError for what is no frame with moments, or has cells that no column can hold."""
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(
            f"entity_df: got {type(frame).__name__}, expected a pandas DataFrame with keys and moments"
        )
    if not frame.columns.is_unique:
        raise UsageError(f"entity_df: a column stands there twice: {list(frame.columns)}")
    moment = _moment_of(frame)
    if not _is_time(frame[moment]):
        frame = frame.assign(**{moment: _parsed(frame[moment], moment)})
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UsageError(f"entity_df: {error}") from None
    return EntityRows(table, moment)


def _moment_of(frame: pd.DataFrame) -> str:
    times = [str(name) for name in frame.columns if _is_time(frame[name])]
    if MOMENT in frame.columns:
        return MOMENT
    if len(times) == 1:
        return times[0]
    raise UsageError(f"entity_df has no column {MOMENT!r}, and its columns with times are {times}")


def _is_time(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_datetime64_any_dtype(column.dtype)


def _parsed(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    try:
        return pd.to_datetime(column, utc=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"entity_df: the column {name!r} holds no times: {error}") from None
