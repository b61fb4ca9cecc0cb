"""A small shop whose feature values a person can work out: tables, sessions, candidates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from contracts.candidates import SIGNALS, SOURCES, CandidateSet
from contracts.events import EventType
from contracts.features import DType, of_view
from contracts.pair import KNOWN, CatalogueColumns, pair_features
from contracts.session import SessionEvent, SessionState, items_of, session_features, visit
from contracts.tables import OFFLINE_COLUMNS, Offline
from feast_engine.writer import ViewWrite

NOON = 1_790_000_000_000 // 86_400_000 * 86_400_000 + 43_200_000
HOUR = 3_600_000
DAY = 24 * HOUR
BIG_ID = 2**52 - 1
ITEMS = ["-1", "ü☃", "plain", "old"]
MINUTE = 60_000


def catalogue_rows() -> list[dict[str, Any]]:
    """Each item twice: `plain` and the others change their price an hour before noon."""
    return [
        {
            "item_id": item,
            "event_timestamp": NOON - before,
            "created_timestamp": NOON - before,
            "category": f"shop.{number}",
            "brand": None if item == "old" else "brand",
            "category_id": BIG_ID - number,
            "brand_id": 0 if item == "old" else BIG_ID,
            "available": 1,
            "price": price + number,
        }
        for before, price in ((5 * DAY, 10.0), (HOUR, 20.0))
        for number, item in enumerate(ITEMS)
    ]


def activity_rows() -> list[dict[str, Any]]:
    """A row a day: `old` has none of the last four days. Known three hours after it holds."""
    names = [feature.name for feature in of_view("item_activity")]
    return [
        {
            "item_id": item,
            "event_timestamp": NOON - days * DAY,
            "created_timestamp": NOON - days * DAY + 3 * HOUR,
            **{name: float(place + days) for place, name in enumerate(names)},
        }
        for item in ITEMS
        for days in range(4 if item == "old" else 0, 7)
    ]


def state(*seconds_and_items: tuple[int, str]) -> SessionState:
    """Item views, so many seconds before noon."""
    return SessionState(
        tuple(
            SessionEvent(
                NOON - before * 1000, 2**63 - 1 - before, EventType.item_view, item, -1, 2, 0
            )
            for before, item in seconds_and_items
        )
    )


STATES = {
    "now": state((300, "plain"), (200, "ü☃"), (100, "plain"), (10, "-1")),
    "gone": state((7200, "plain"), (1801, "-1")),
}


def session_rows() -> list[dict[str, Any]]:
    """A row after each event of each session."""
    rows = []
    for session, whole in STATES.items():
        for count in range(1, len(whole.events) + 1):
            known = SessionState(whole.events[:count])
            at = known.events[-1].time
            features = session_features(visit(known, at))
            times = {"event_timestamp": at, "created_timestamp": at}
            rows.append({"session_id": session, **times, **known.columns(), **features})
    return rows


@contextlib.contextmanager
def feast_at(moment_ms: int) -> Iterator[None]:
    """Feast's online reads are as of now: this is now."""
    from feast_engine import online_store

    with pytest.MonkeyPatch.context() as patched:
        moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
        patched.setattr(online_store, "now", lambda: moment)
        yield


def write_table(offline: str, table: Offline, rows: list[dict[str, Any]]) -> None:
    types = {
        "timestamp": pa.timestamp("us", "UTC"),
        "float": pa.float32(),
        "int64": pa.int64(),
        "string": pa.string(),
        "list<int64>": pa.list_(pa.int64()),
        "list<string>": pa.list_(pa.string()),
    }
    columns = {}
    for name, kind in OFFLINE_COLUMNS[table].items():
        values = [row[name] for row in rows]
        if kind == "timestamp":
            values = [datetime.fromtimestamp(value / 1000, UTC) for value in values]
        columns[name] = pa.array(values, types[kind])
    folder = Path(offline) / table.value
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part-0.parquet")


def session_writes(sessions: list[str], states: list[SessionState]) -> list[ViewWrite]:
    times = [each.events[-1].time for each in states]
    rows = [
        {**each.columns(), **session_features(visit(each, at))}
        for each, at in zip(states, times, strict=True)
    ]
    return [
        ViewWrite(
            view, sessions, times, {f.name: [row[f.name] for row in rows] for f in of_view(view)}
        )
        for view in ("session", "context")
    ]


def pair_inputs(at: int) -> tuple[pd.DataFrame, dict[str, np.ndarray[Any, Any]]]:
    """Rows of both sessions and three candidates each, shuffled; and what pair_features says."""
    columns: dict[str, list[Any]] = {}
    expected: dict[str, list[float]] = {}
    catalogue = {row["item_id"]: row for row in catalogue_rows()}  # the later row stays
    for row in activity_rows():
        if row["event_timestamp"] == NOON - DAY:  # the newest that is known at noon
            catalogue[row["item_id"]]["views_7d"] = row["views_7d"]
    for session, whole in STATES.items():
        visited = items_of(visit(whole, at))
        items = ("plain", "-1", "unknown")
        ranks = np.full((3, len(SOURCES)), np.nan, np.float32)
        ranks[0, 1], ranks[1] = 3, range(1, len(SOURCES) + 1)
        signals = np.arange(3 * len(SIGNALS), dtype=np.float32).reshape(3, -1)
        signals[2] = np.nan
        found = CandidateSet(items, (ranks / 2).astype(np.float32), ranks, signals)
        values = pair_features(visited, known(catalogue, visited), found, known(catalogue, items))
        rows: dict[str, list[Any]] = {
            "session_id": [session] * 3,
            "item_id": list(items),
            "asked_at": [at] * 3,
            "visited_category_ids": [[catalogue[i]["category_id"] for i in visited]] * 3,
            "visited_brand_ids": [[catalogue[i]["brand_id"] for i in visited]] * 3,
            "visited_prices": [[catalogue[i]["price"] for i in visited]] * 3,
            "visited_views_7d": [[catalogue[i]["views_7d"] for i in visited]] * 3,
        }
        for place, source in enumerate(SOURCES):
            rows[f"source_{source}_score"] = found.scores[:, place].tolist()
            rows[f"source_{source}_rank"] = found.ranks[:, place].tolist()
        for place, name in enumerate(SIGNALS):
            rows[f"signal_{name}"] = found.signals[:, place].tolist()
        for name, cells in rows.items():
            columns.setdefault(name, []).extend(cells)
        for name, numbers in values.items():
            expected.setdefault(name, []).extend(numbers.tolist())
    order = [4, 0, 5, 2, 1, 3]
    frame = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    return frame, {name: np.array(cells, np.float32)[order] for name, cells in expected.items()}


def known(catalogue: dict[str, Any], items: Any) -> CatalogueColumns:
    rows = [catalogue.get(item, {}) for item in items]
    return CatalogueColumns.of({name: [row.get(name, math.nan) for row in rows] for name in KNOWN})


FLOATS = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: dict[DType, st.SearchStrategy[Any]] = {
    DType.float32: FLOATS,
    DType.int64: NUMBERS,
    DType.string: st.none() | TEXTS,
    DType.list_int64: st.lists(NUMBERS, min_size=1, max_size=5),
    DType.list_string: st.lists(TEXTS, min_size=1, max_size=5),
}


@st.composite
def written(draw: st.DrawFn) -> tuple[str, list[str], list[int], dict[str, list[Any]]]:
    """A view, ids, event times and columns, of any values that Feast takes."""
    view = draw(st.sampled_from(["session", "context", "item_catalogue", "item_activity"]))
    ids = draw(st.lists(TEXTS | st.just("-1"), min_size=1, max_size=4, unique=True))
    size = len(ids)
    times = draw(st.lists(st.integers(NOON, NOON + DAY), min_size=size, max_size=size))
    columns = {
        feature.name: draw(st.lists(VALUES[feature.dtype], min_size=size, max_size=size))
        for feature in of_view(view)
    }
    return view, ids, times, columns
