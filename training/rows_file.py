"""The training rows as a file: what the ranker learned from, for a person to look at."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.features import RANKED
from contracts.settings import Settings
from training.dataset import Listed, Rows, joined

KEPT = 3
"""Newest trainings whose rows stay: a large shop's are a hundred megabytes."""


def save(
    settings: Settings, run: str, windows: Sequence[Rows], lists: Sequence[Sequence[Listed]]
) -> Path:
    """Write `<home>/training/<run>/rows.parquet`: query, session_id, moment (milliseconds),
    item_id, label and the ranker's columns, one row a candidate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = joined(windows)
    listed = [entry for window in lists for entry in window]
    asked = [listed[place].query for place in rows.query]
    columns: dict[str, Any] = {
        "query": rows.query,
        "session_id": [query.session_id for query in asked],
        "moment": [query.moment for query in asked],
        "item_id": rows.items,
        "label": rows.label,
    }
    columns |= {name: rows.features[:, place] for place, name in enumerate(RANKED)}
    folder = settings.home / "training"
    path = folder / run / "rows.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd")
    _prune(folder)
    return path


def _prune(folder: Path) -> None:
    found = sorted(folder.glob("*/rows.parquet"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-KEPT]:
        shutil.rmtree(path.parent)
