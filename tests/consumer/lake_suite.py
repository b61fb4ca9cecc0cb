"""What a lake does with files and notes, on a disk as on S3."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.tables import Lake
from orchestrator.consumer import intents
from orchestrator.consumer.intents import Intent
from orchestrator.consumer.lake import ParquetLake, files_of, schema_of

DAY_MS = 24 * 3600 * 1000
PLACE = (Topic.prices, 0)


def prices(*times: int) -> pa.Table:
    rows = [{"item_id": "i", "time": time, "price": 1.0} for time in times]
    return pa.Table.from_pylist(rows, schema=schema_of(Lake.prices))


def check_lake(lake: ParquetLake, filesystem: Any, root: str) -> None:
    """`filesystem`, `root`: where the empty lake lies, for whoever reads its tables."""

    def times() -> list[int]:
        table = ds.dataset(f"{root}/prices", filesystem=filesystem, format="parquet").to_table()
        return sorted(table["time"].to_pylist())

    assert lake.intents() == []
    kept, lost = (
        files_of(Lake.prices, prices(1, DAY_MS), "kept"),
        files_of(Lake.prices, prices(2), "lost"),
    )
    for name, files in (("kept", kept), ("lost", lost)):
        lake.note(Intent(name, {PLACE: (0, 1)}, tuple(files)))
        for path, rows in files.items():
            lake.write_file(path, rows)
    assert [intent.name for intent in lake.intents()] == ["kept", "lost"]
    assert times() == [1, 2, DAY_MS]

    intents.settle(lake, {PLACE: "kept"}, set(), lambda: 7)
    assert times() == [1, DAY_MS]
    assert lake.intents() == [Intent("lost", {PLACE: (0, 1)}, tuple(lost), void_since=7)]
    lake.delete(lost)  # what is gone already is no error
    lake.forget("lost")
    lake.forget("lost")
    assert lake.intents() == []

    lake.write_file("_stores/odd.json", prices(1))
    with pytest.raises(ServiceError, match="no note of a store"):
        lake.intents()
