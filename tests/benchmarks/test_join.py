"""The join benchmark's data have one right answer, and its comparison finds what differs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import join_data
from benchmarks.join import differing_cells, parse_sizes
from benchmarks.join_data import Size, feature_names, write
from contracts.errors import ServiceError, UsageError


def _answer(rows: list[int], cell: float | None) -> pa.Table:
    features = {name: [1.0, None, 3.0] for name in feature_names()}
    features["feature_03"] = [1.0, cell, 3.0]
    return pa.table({"row": [0, 1, 2], **features}).take(pa.array(rows))


def test_cells_are_compared_by_row_and_nulls_are_equal() -> None:
    assert differing_cells(_answer([0, 1, 2], None), _answer([2, 0, 1], None)) == 0
    assert differing_cells(_answer([0, 1, 2], None), _answer([2, 0, 1], 2.0)) == 1
    assert differing_cells(_answer([0, 1, 2], 2.5), _answer([0, 1, 2], 2.0)) == 1


def test_a_lost_row_is_told() -> None:
    with pytest.raises(ServiceError, match="3 and 2"):
        differing_cells(_answer([0, 1, 2], None), _answer([0, 2], None))


def test_no_two_rows_of_the_history_have_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_data, "FILE_ROWS", 300)
    write(tmp_path, Size.of(50, 1000, None, 0))
    history = pq.read_table(tmp_path / "history")
    times = history["event_timestamp"].to_pylist()
    assert (len(list((tmp_path / "history").iterdir())), len(times)) == (4, 1000)
    assert len(set(times)) == 1000
    assert history["created_timestamp"].to_pylist() == times
    assert max(times) - min(times) < join_data.SPAN
    assert pq.read_table(tmp_path / "asked.parquet")["row"].to_pylist() == list(range(50))


@pytest.mark.parametrize("text", ["", "3", "3x", "0x3", "3x4x5", "ax3"])
def test_wrong_sizes_are_told(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        parse_sizes(text)
