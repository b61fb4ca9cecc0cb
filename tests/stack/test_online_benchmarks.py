"""Small runs of `online-write` and `online-read`: what they count, and that they find differences."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as benchmarks
from benchmarks import online_read, online_write, result
from feast_engine import columnar, guard
from feast_engine.roundtrip import packed

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(result, "FOLDER", tmp_path)
    return tmp_path


def run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(benchmarks.main, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document


WRITE = ("online-write", "--rows", "300", "--features", "3", "--rounds", "2", "--feast-rows", "150")


def test_online_write_reads_back_what_it_wrote(results: Path) -> None:
    document = run(*WRITE)
    assert (document["rows_in"], document["rows_out"]) == (300, 300)
    assert (document["differing"], document["older_refused"]) == (0, 300)
    assert len(document["rounds"]) == 2
    assert document["rows_per_second"] == max(document["rounds"])
    assert document["feast_rows_per_second"] > 0
    [raw] = results.iterdir()
    assert document["raw"] == str(raw)
    assert "rows/s" in online_write.text(document)


def test_online_write_counts_cells_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = columnar.encode_floats
    monkeypatch.setattr(columnar, "encode_floats", lambda values: encode(values + 1))
    # all but the missing ones, three of the last column; and those of Feast's bytes
    assert run(*WRITE)["differing"] == 3 * 300 - 3 + 3 * 150 - 2


def test_online_write_counts_what_the_rule_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    script = guard.SCRIPT.replace(b"and newer(", b"and false and newer(")
    monkeypatch.setattr(
        guard, "SHA", hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
    )
    monkeypatch.setattr(guard, "_LOAD", packed([b"SCRIPT", b"LOAD", script]))
    document = run(*WRITE)
    assert document["older_refused"] == 0
    assert document["differing"] == 300 + 150  # event times, and Feast's bytes


def test_online_read_compares_every_cell(results: Path) -> None:
    document = run("online-read", "--items", "30", "--reads", "2")
    assert (document["rows_in"], document["rows_out"], document["cells"]) == (30, 30, 480)
    assert document["differing"] == 0
    assert document["ratio"] > 1
    [raw] = results.iterdir()
    assert len(json.loads(raw.read_text())["samples"]["reader_ms"]) == 2
    assert "times faster" in online_read.text(document)
