"""The file of the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.features import RANKED
from contracts.settings import Settings
from training import dataset, rows_file
from training.dataset import Listed
from training.history import Query


def test_rows_are_kept_by_name_and_only_the_newest_files(tmp_path: Path, make_reader: Any) -> None:
    none = np.full((2, len(SOURCES)), np.nan, dtype=np.float32)
    listed = [
        Listed(
            Query("v", "s", 7000, ("x",), "b", 8000),
            CandidateSet(("a", "b"), none, none, unknown_signals(2)),
            1,
        )
    ]
    rows = dataset.rows_of(listed, make_reader({"views_1d": lambda item, _: float(ord(item))}))
    settings = Settings.model_validate({"home": tmp_path})
    paths = [rows_file.save(settings, f"run{number}", [rows], [listed]) for number in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    table = pq.read_table(paths[-1])
    assert table.column_names == ["query", "session_id", "moment", "item_id", "label", *RANKED]
    assert table["item_id"].to_pylist() == ["a", "b"]
    assert table["label"].to_pylist() == [0, 1]
    assert table["moment"].to_pylist() == [7000, 7000]
    assert table["views_1d"].to_pylist() == [ord("a"), ord("b")]
