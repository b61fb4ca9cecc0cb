"""Point-in-time values of stored views, as the offline store joins them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import UsageError
from contracts.features import VIEWS, DType, of_view
from contracts.tables import EVENT_TIMESTAMP


def stored_features(
    entity_df: pd.DataFrame, store: Any, views: Sequence[str], known_only: bool = True
) -> pd.DataFrame:
    """The rows of `entity_df` with the columns of the views added, in its order and index.

    entity_df: `event_timestamp` (the moment, with a time zone) and `session_id` and/or `item_id`,
    as the views need; other columns stay. store: `feast_engine.store.open_store`. The row that
    answers is that of `feast_engine.join_rule`; `known_only` False: known by then or not, whatever
    the view says. Columns are as the online reader gives them: float32 (nan missing), int64
    (0 missing), texts (None missing), lists ([] missing).

    UsageError for rows that cannot be asked for.
    """
    from feast_engine.entity_rows import entity_rows
    from feast_engine.offline_store import historical_table

    _check(entity_df, views)
    keys = {key for name in views for key in VIEWS[name].join_keys}
    asking = entity_rows(entity_df[[EVENT_TIMESTAMP, *sorted(keys)]])
    answer = historical_table(
        store.config,
        [store.get_feature_view(name) for name in views],
        [f"{name}:{feature.name}" for name in views for feature in of_view(name)],
        asking,
        as_known=None if known_only else False,
    )
    columns = {
        feature.name: pd.Series(_values(answer[feature.name], feature.dtype), entity_df.index)
        for name in views
        for feature in of_view(name)
    }
    return entity_df.assign(**columns)


def _check(entity_df: pd.DataFrame, views: Sequence[str]) -> None:
    for name in views:
        if name not in VIEWS or VIEWS[name].on_demand:
            raise UsageError(f"{name!r} is no stored view of contracts/features.py")
        lost = [key for key in VIEWS[name].join_keys if key not in entity_df.columns]
        if lost:
            raise UsageError(f"the view {name!r} needs the column {lost[0]!r}")
        if entity_df[list(VIEWS[name].join_keys)].isna().any(axis=None):
            raise UsageError(f"the view {name!r}: a row has no {VIEWS[name].join_keys[0]}")
    moments = entity_df.get(EVENT_TIMESTAMP)
    if not isinstance(moments, pd.Series) or not isinstance(moments.dtype, pd.DatetimeTZDtype):
        raise UsageError(f"{EVENT_TIMESTAMP}: expected times with a time zone")
    if moments.isna().any():
        raise UsageError(f"{EVENT_TIMESTAMP}: a row has no time")


def _values(column: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """column: pyarrow's, with nulls where there is no value."""
    if dtype is DType.float32:
        return np.asarray(column.to_numpy(), dtype=np.float32)
    if dtype is DType.int64:
        return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int64)
    nothing: Any = None if dtype is DType.string else []
    out = np.empty(len(column), dtype=object)
    for place, value in enumerate(column.to_pylist()):  # numpy takes equally long lists for rows
        out[place] = nothing if value is None else value
    return out
