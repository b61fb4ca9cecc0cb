"""Files of the lake: by day, whole, replaced by the same messages only."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.tables import Lake
from orchestrator.consumer.buffer import LakeBuffer, Limits
from orchestrator.consumer.lake import DAY_MS, ParquetLake, schema_of
from orchestrator.consumer.parsing import Parsed, parse
from orchestrator.consumer.ports import Record
from tests.consumer.lake_suite import check_lake

NIGHT = 19_676 * DAY_MS  # 2023-11-15T00:00 UTC


def price(offset: int, time: int, partition: int = 0) -> Parsed:
    value = json.dumps({"item_id": "i", "time": time, "price": 1}).encode()
    return parse(Record(Topic.prices, partition, offset, value), NIGHT * 2)


def stored(folder: Path, *messages: Parsed) -> list[Path]:
    buffer = LakeBuffer(Limits())
    buffer.add(messages, 0.0)
    buffer.store(ParquetLake(str(folder)))
    return sorted(folder.rglob("*.parquet"))


def test_rows_lie_in_the_folder_of_their_day(tmp_path: Path) -> None:
    files = stored(tmp_path, price(0, NIGHT - 1), price(1, NIGHT))
    assert [file.parent.name for file in files] == ["day=2023-11-14", "day=2023-11-15"]
    assert [pq.ParquetFile(file).read()["time"].to_pylist() for file in files] == [[NIGHT - 1], [NIGHT]]  # fmt: skip
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == []


def test_a_lake_in_a_folder_keeps_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    check_lake(ParquetLake(str(tmp_path)), fs.LocalFileSystem(), str(tmp_path))


def test_what_a_killed_writer_left_half_goes_with_its_file(tmp_path: Path) -> None:
    half = tmp_path / "prices/day=2023-11-15/.x.123.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"PAR1")
    ParquetLake(str(tmp_path)).delete(["prices/day=2023-11-15/x.parquet"])
    assert not half.exists()


def test_a_lake_that_cannot_be_written_is_a_service_error(tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("in the way")
    rows = pa.Table.from_pylist([{"item_id": "i", "time": NIGHT}], schema=schema_of(Lake.prices))
    with pytest.raises(ServiceError, match="cannot be written"):
        ParquetLake(str(tmp_path)).write(Lake.prices, rows, "x")


@pytest.mark.parametrize(
    ("rows", "now", "idle", "due"),
    [(1, 9, False, False), (1, 10, False, True), (3, 1, True, True), (3, 1, False, False), (5, 1, False, True)],
)  # fmt: skip
def test_when_the_buffer_is_due(rows: int, now: float, idle: bool, due: bool) -> None:
    buffer = LakeBuffer(Limits(rows=5, seconds=10, idle_rows=3))
    assert not buffer.due(100, idle=True)
    buffer.add([price(n, NIGHT) for n in range(rows)], 0.0)
    assert buffer.due(now, idle) is due


def test_bytes_make_the_buffer_due() -> None:
    buffer = LakeBuffer(Limits(bytes=10))
    buffer.add([price(0, NIGHT)], 0.0)
    assert buffer.due(0.0, idle=False)
