"""The pages made from contracts/ are up to date and say everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.events import Event, Reason, Topic
from contracts.features import BY_NAME, VIEWS
from contracts.settings import ROOT, Settings
from docs import generate


def test_the_pages_are_up_to_date() -> None:
    assert generate.stale() == [], "run: make docs"


def test_a_changed_and_a_lost_page_are_stale(tmp_path: Path) -> None:
    for name, text in generate.pages().items():
        (tmp_path / name).write_text(text)
    assert generate.stale(tmp_path) == []
    (tmp_path / "events.md").write_text("old")
    (tmp_path / "features.md").unlink()
    assert generate.stale(tmp_path) == ["events.md", "features.md"]


def test_every_setting_field_reason_and_feature_has_its_row() -> None:
    pages = generate.pages()
    rows = {name: set(re.findall(r"^\| `([^`]+)` \|", text, re.M)) for name, text in pages.items()}
    assert {f"NEXTCLICK_{name.upper()}" for name in Settings.model_fields} == rows["settings.md"]
    assert {*BY_NAME, *VIEWS} == rows["features.md"]
    assert {*Event.model_fields, *(reason.value for reason in Reason)} <= rows["events.md"]
    assert all(f"`{topic.value}`" in pages["events.md"] for topic in Topic)


def test_every_row_of_a_table_has_as_many_cells_and_a_meaning() -> None:
    for text in generate.pages().values():
        for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
            cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
            assert len({len(line) for line in cells}) == 1, table
            if cells[0][-1].strip() in ("meaning", "when"):
                assert all(line[-1].strip() for line in cells), table


def test_no_machine_path_stands_in_a_page() -> None:
    for text in generate.pages().values():
        assert str(ROOT) not in text
        assert str(Path.home()) + "/" not in text


@pytest.mark.parametrize(("arguments", "code"), [(["--check"], 0), (["--chek"], 2)])
def test_the_command(arguments: list[str], code: int) -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert (code == 2) == ("--check" in done.stderr)


def test_the_pages_do_not_depend_on_the_environment() -> None:
    """Someone with settings of their own writes the same pages."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    environment = {**os.environ, "NEXTCLICK_API_PORT": "1234", "NEXTCLICK_HOME": "/elsewhere"}
    done = subprocess.run(command, env=environment, timeout=60, check=False)
    assert done.returncode == 0
