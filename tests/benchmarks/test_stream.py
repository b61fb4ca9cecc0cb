"""The benchmark of the stream: what needs no server."""

from __future__ import annotations

from pathlib import Path

from benchmarks import NAMES
from benchmarks.stream import COMMAND, Memory, text
from contracts.settings import Settings


def test_the_result_is_readable_with_and_without_the_single_view() -> None:
    document = {
        "events_per_second": 12_345, "count_and_tell_seconds": 3.5, "rows": 6000,
        "idle_cycle_seconds": [0.5, 0.7], "delay_seconds": None,
        "memory_mb": {"java": 700.0, "python": 300.0, "together": 990.0},
    }  # fmt: skip
    assert "12,345 events a second" in text(document)
    assert "not measured" in text(document)
    assert "341.5 s" in text({**document, "delay_seconds": 341.5})
    assert "990.0 MB (Java 700.0, Python 300.0)" in text(document)


def test_memory_of_no_process_is_none(tmp_path: Path) -> None:
    memory = Memory(Settings(home=tmp_path))
    memory.look()
    assert memory.peaks == {"java": 0.0, "python": 0.0, "together": 0.0}
    assert COMMAND.name in NAMES
