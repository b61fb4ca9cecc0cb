"""Point-in-time values of stored views, through Feast's historical retrieval.

Feast joins by key and moment and gives rows back in an order of its own. Training rows repeat
items and moments, so each (key, moment) is asked for once, and its values go to every row that
has it: every row comes back once, in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from contracts.errors import ServiceError, UsageError
from contracts.features import VIEWS, DType, View, of_view
from contracts.tables import EVENT_TIMESTAMP
from feast_engine.store import quiet_feast

_PAIR = "pair_of_row"


def stored_features(
    entity_df: pd.DataFrame, store: Any, views: Sequence[str], known_only: bool = True
) -> pd.DataFrame:
    """The rows of `entity_df` with the columns of the views added, in its order and index.

    entity_df: `event_timestamp` (the moment, with a time zone) and `session_id` and/or `item_id`,
    as the views need; other columns stay. store: `feast_engine.store.open_store`. The newest row
    of the key at the moment, not older than the view's maximum age; `known_only`: and that was
    known by then (created timestamp). Columns are as the online reader gives them: float32 (nan
    missing), int64 (0 missing), texts (None missing), lists ([] missing).

    UsageError for rows that cannot be asked for; ServiceError where Feast loses or doubles one.
    """
    _check(entity_df, views)
    columns: dict[str, Any] = {}
    for name in views:
        columns |= _view_columns(entity_df, store, VIEWS[name], known_only)
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


def _view_columns(
    entity_df: pd.DataFrame, store: Any, view: View, known_only: bool
) -> dict[str, Any]:
    keys = [*view.join_keys, EVENT_TIMESTAMP]
    pair_of_row = entity_df.groupby(keys, sort=False).ngroup().to_numpy()
    pairs = entity_df.loc[:, keys].drop_duplicates().reset_index(drop=True)
    if pairs.empty:
        answer = pd.DataFrame({feature.name: [] for feature in of_view(view.name)})
    else:
        answer = _ask(store, view, pairs, known_only)
    return {
        feature.name: pd.Series(
            _values(answer[feature.name], feature.dtype)[pair_of_row], entity_df.index
        )
        for feature in of_view(view.name)
    }


def _ask(store: Any, view: View, pairs: pd.DataFrame, known_only: bool) -> pd.DataFrame:
    """The view's columns for each pair, in the order of `pairs`."""
    numbered = pairs.assign(**{_PAIR: np.arange(len(pairs))})
    with quiet_feast():
        answer: pd.DataFrame = store.get_historical_features(
            entity_df=numbered,
            features=[f"{view.name}:{feature.name}" for feature in of_view(view.name)],
            filter_by_created_timestamp=known_only,
        ).to_df()
    answer = answer.sort_values(_PAIR, ignore_index=True)
    if not np.array_equal(answer[_PAIR].to_numpy(), np.arange(len(pairs))):
        raise ServiceError(
            f"Feast gave {len(answer):,} rows of the view {view.name!r} for {len(pairs):,}: "
            "a row was lost or doubled; offline_store in the feature_store.yaml has to be duckdb"
        )
    return answer


def _values(column: pd.Series[Any], dtype: DType) -> np.ndarray[Any, Any]:
    if dtype is DType.float32:
        return column.to_numpy(dtype=np.float32, na_value=np.nan)
    if dtype is DType.int64:
        return column.fillna(0).to_numpy(dtype=np.int64)
    out = np.empty(len(column), dtype=object)
    if dtype is DType.string:
        out[:] = [value if isinstance(value, str) else None for value in column]
    else:
        out[:] = [list(value) if isinstance(value, list | np.ndarray) else [] for value in column]
    return out
