"""The benchmark of candidates and features, on a tiny table."""

from __future__ import annotations

from pathlib import Path

from benchmarks.candidates import measure
from contracts.candidates import SOURCES
from contracts.features import RANKED
from tests.training.evaluation import tables


def test_every_part_is_timed(tmp_path: Path) -> None:
    table = tables.write(tmp_path / "t.parquet", tables.sessions(80, 1), tables.sessions(30, 2))
    found = measure(table, None, 40, 20)
    assert found["requests"] == 38  # of 40 the first 2 compile
    assert (found["count"], found["features"]) == (20, len(RANKED))
    assert found["dimensions"] == 256
    timed = found["microseconds"]
    assert set(timed) == {"candidates", "features", *SOURCES}
    assert all(0 < of["p50"] <= of["p99"] for of in timed.values())
    assert found["both_us"] == timed["candidates"]["mean"] + timed["features"]["mean"]
