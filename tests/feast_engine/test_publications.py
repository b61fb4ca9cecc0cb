"""Records of what was made visible, on a disk."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contracts.errors import ServiceError
from feast_engine import publications
from feast_engine.publications import Publication

UNTIL = 1_790_000_000_000


def test_a_publication_is_known_before_it_ends_and_after(tmp_path: Path) -> None:
    before = time.time_ns() // 1_000_000
    begun = publications.begin(str(tmp_path), "item_activity", UNTIL)
    assert before <= begun.started_ms <= time.time_ns() // 1_000_000
    assert begun == Publication("item_activity", UNTIL, begun.started_ms, None, 0)
    assert publications.read(str(tmp_path), "item_activity") == [begun]
    ended = publications.finish(str(tmp_path), begun, 7)
    assert ended.finished_ms is not None
    assert ended.finished_ms >= ended.started_ms
    assert (ended.rows, ended.started_ms) == (7, begun.started_ms)
    assert publications.read(str(tmp_path), "item_activity") == [ended]


def test_records_are_by_view_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([30, 10, 10, 10, 20])  # a clock that jumps back and stands still
    monkeypatch.setattr(publications, "_now", lambda: next(clock))
    begun = [publications.begin(str(tmp_path), "item_activity", UNTIL) for _ in range(4)]
    other = publications.begin(str(tmp_path), "item_catalogue", UNTIL)
    assert [each.started_ms for each in begun] == [30, 10, 11, 12]
    read = publications.read(str(tmp_path), "item_activity")
    assert [each.started_ms for each in read] == [10, 11, 12, 30]
    assert publications.read(str(tmp_path), "item_catalogue") == [other]


def test_nothing_was_published_yet(tmp_path: Path) -> None:
    assert publications.read(str(tmp_path / "none"), "item_activity") == []


def test_a_record_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    begun = publications.begin(str(tmp_path), "item_activity", UNTIL)
    folder = tmp_path / publications.FOLDER / "item_activity"
    assert [path.name for path in folder.iterdir()] == [f"{begun.started_ms}-{UNTIL}.json"]
    (folder / ".abc").write_text('{"view": ')  # what a process that died left
    assert publications.read(str(tmp_path), "item_activity") == [begun]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"view": "v"}',
        '{"view": "v", "until_ms": "x", "started_ms": 1, "finished_ms": null, "rows": 0}',
        '{"view": "v", "until_ms": 1, "started_ms": 1, "finished_ms": "x", "rows": 0}',
    ],
)
def test_another_file_is_told(tmp_path: Path, text: str) -> None:
    folder = tmp_path / publications.FOLDER / "item_activity"
    folder.mkdir(parents=True)
    (folder / "1-2.json").write_text(text)
    with pytest.raises(ServiceError, match=r"1-2\.json is no record"):
        publications.read(str(tmp_path), "item_activity")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "offline").write_text("a file")
    with pytest.raises(ServiceError, match="NEXTCLICK_OFFLINE"):
        publications.begin(str(tmp_path / "offline"), "item_activity", UNTIL)
