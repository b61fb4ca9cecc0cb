"""What is read of the offline store, and what its windows leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import UsageError
from contracts.settings import Settings
from contracts.windows import Windows
from training import history
from training.history import Query


def write(folder: Path, table: str, columns: dict[str, Any]) -> None:
    (folder / "offline" / table).mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "offline" / table / "part.parquet")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path})


def test_a_query_belongs_to_the_window_that_holds_it_and_its_answer(
    settings: Settings, tmp_path: Path
) -> None:
    """The models of a window know what lies before it: neither end may reach over."""
    asked = [(99, 105), (100, 105), (150, 199), (150, 200), (200, 205)]
    rows = [Query("v", "s", moment, ("a", "b"), "c", then) for moment, then in asked]
    columns = {name: [getattr(row, name) for row in rows] for name in Query._fields}
    write(tmp_path, "queries", columns | {"visited": [list(row.visited) for row in rows]})
    assert history.queries(settings, 100, 200) == [rows[1], rows[2]]


def test_clicks_are_known_before_the_cutoff_and_are_of_interest(
    settings: Settings, tmp_path: Path
) -> None:
    write(
        tmp_path,
        "events_clean",
        {
            "visit": ["v"] * 6,
            "time": [10, 20, 30, 40, 45, 50],
            "received": [12, 20, 30, 49, 60, 50],
            # view, search, removal, click, a view that is known late, view
            "type": pa.array([2, 4, 6, 3, 2, 2], pa.int32()),
            "item_id": ["a", None, "b", "c", "late", "d"],
        },
    )
    assert history.clicks(settings, 50)["item_id"].to_pylist() == ["a", "c"]
    write(tmp_path, "queries", {"moment": [10, 20, 40, 50], "label_time": [15, 30, 45, 60]})
    counts = {(36, 48): 1}
    assert history.windows(settings) == Windows.of(10, 60, lambda *window: counts.get(window, 0))


def test_an_event_of_long_ago_does_not_stretch_the_history(
    settings: Settings, tmp_path: Path
) -> None:
    times = [10, *range(10**12, 10**12 + 2000)]
    write(tmp_path, "events_clean", {"time": times, "received": times})
    write(tmp_path, "queries", {"moment": [10**12], "label_time": [10**12]})
    found = history.windows(settings)
    assert found == Windows.of(10**12 + 1, 10**12 + 1999, lambda start, end: 0)
    assert found.labels[-1][0] > 10**12


def test_missing_and_wrong_tables_are_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table queries at .*nextclick demo"):
        history.queries(settings, 0, 1)
    write(tmp_path, "queries", {"moment": [1], "other": [2]})
    with pytest.raises(UsageError, match=r"has the columns .*'other'.* expected .*'visited'"):
        history.queries(settings, 0, 1)


def test_an_empty_history_is_named(settings: Settings, tmp_path: Path) -> None:
    write(tmp_path, "events_clean", dict.fromkeys(["time", "received"], pa.array([], pa.int64())))
    with pytest.raises(UsageError, match="holds no event"):
        history.windows(settings)
