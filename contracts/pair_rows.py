"""Pair features for rows of (session, candidate), as Feast's on-demand view receives them.

A row names its session and moment, its candidate, and what the request knows: the candidate's
scores and ranks, and the catalogue of the visit's items. Rows of one session and moment form one
call of `contracts.pair.pair_features`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import SIGNALS, SOURCES, CandidateSet, unknown_signals
from contracts.errors import UsageError
from contracts.features import of_view
from contracts.pair import ACTIVITY, CATALOGUE, KNOWN, CatalogueColumns, pair_features
from contracts.session import SessionEvent, SessionState, items_of, visit

ASKED_AT = "asked_at"
"""The moment that is asked for, int64 milliseconds since 1970 UTC."""
VISITED_COLUMNS: dict[str, str] = {
    **{f"visited_{name}s": name for name in CATALOGUE},
    **{f"visited_{name}": name for name in ACTIVITY},
}
"""What is known of the visit's items, as lists, oldest first: column name to catalogue feature."""
SOURCE_COLUMNS: tuple[str, ...] = (
    *(f"source_{source}_{kind}" for source in SOURCES for kind in ("score", "rank")),
    *(f"signal_{name}" for name in SIGNALS),
)
"""What the candidate sources said of the candidate; nan or None where one did not propose it."""
STATE_COLUMNS: tuple[str, ...] = tuple(f"event_{name}" for name in SessionEvent._fields)
_GROUP = ("session_id", ASKED_AT)

Columns = Mapping[str, Sequence[Any]]
Doubles = npt.NDArray[np.float64]


def pair_rows(columns: Columns) -> dict[str, list[Any]]:
    """The features of `session_item`, one np.float32 a row.

    columns: by name, one value a row each: `session_id` and `item_id` (where they are absent,
    all rows are of one session and of items not visited), `asked_at`, the lists `event_*` of the
    view `session`, `contracts.pair.KNOWN` of the candidate, `SOURCE_COLUMNS` and
    `VISITED_COLUMNS`. Missing values are None or nan. UsageError where a visit's catalogue is
    not as long as the visit.
    """
    rows = len(columns[ASKED_AT])
    out = {name: np.full(rows, np.nan, np.float32) for name in _names()}
    for index in _groups(columns, rows):
        for name, values in _group_features(columns, index).items():
            out[name][index] = values
    return {name: list(values) for name, values in out.items()}


def _names() -> list[str]:
    return [feature.name for feature in of_view("session_item")]


def _groups(columns: Columns, rows: int) -> list[list[int]]:
    """Rows of the same session and moment, each group in the order of its first row."""
    present = [columns[name] for name in _GROUP if name in columns]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in range(rows):
        groups.setdefault(tuple(values[row] for values in present), []).append(row)
    return list(groups.values())


def _group_features(columns: Columns, index: list[int]) -> dict[str, npt.NDArray[np.float32]]:
    first = index[0]
    visited = _visited(columns, first)
    return pair_features(
        visited,
        _visited_catalogue(columns, first, len(visited)),
        _candidates(columns, index),
        CatalogueColumns.of({name: _take(columns[name], index) for name in KNOWN}),
    )


def _visited(columns: Columns, row: int) -> list[str]:
    state = SessionState.from_columns({name: _list(columns[name][row]) for name in STATE_COLUMNS})
    return items_of(visit(state, int(columns[ASKED_AT][row])))


def _visited_catalogue(columns: Columns, row: int, visited: int) -> CatalogueColumns:
    if not visited:
        return CatalogueColumns.unknown(0)
    lists = {name: _list(columns[name][row]) for name in VISITED_COLUMNS}
    for name, values in lists.items():
        if len(values) not in (0, visited):
            raise UsageError(
                f"{name}: got {len(values)} values, expected one for each of the {visited} items "
                "of the visit (contracts.session.items_of), or none where nothing is known"
            )
    unknown = [np.nan] * visited
    return CatalogueColumns.of(
        {VISITED_COLUMNS[name]: _floats(values or unknown) for name, values in lists.items()}
    )


def _candidates(columns: Columns, index: list[int]) -> CandidateSet:
    items = columns.get("item_id")
    names = tuple("" if items is None else str(items[row]) for row in index)
    scores, ranks = (
        np.stack([_take(columns[f"source_{source}_{kind}"], index) for source in SOURCES], axis=1)
        for kind in ("score", "rank")
    )
    told = [_take(columns[f"signal_{name}"], index) for name in SIGNALS]
    signals = np.stack(told, axis=1).astype(np.float32) if told else unknown_signals(len(index))
    return CandidateSet(names, scores.astype(np.float32), ranks.astype(np.float32), signals)


def _take(values: Sequence[Any], index: list[int]) -> Doubles:
    return _floats([values[row] for row in index])


def _floats(values: Sequence[Any]) -> Doubles:
    """Double precision: ids fit (contracts.features.text_id); None becomes nan."""
    return np.array(values, dtype=np.float64)


def _list(value: Any) -> list[Any]:
    """A list of a cell: None, or nan from pandas, is an empty one."""
    return [] if value is None or isinstance(value, float) else list(value)
