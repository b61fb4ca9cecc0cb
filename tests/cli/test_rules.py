"""`nextclick rules`, as a shell sees it. Each runs without a stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.release import ReleaseStore
from contracts.rules import DEFAULT, RULES_FILE, Rules
from tests.cli.test_cli import release, run

SPRING: dict[str, Any] = {
    "version": "spring",
    "exclude_seen": True,
    "pins": [{"item": "4711", "place": 1}],
}


def written(folder: Path, content: object) -> Path:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def live(folder: Path) -> ReleaseStore:
    """A release `r1` that is live and has the usual rules."""
    store = ReleaseStore(folder / "releases")
    store.add(release("r1").model_copy(update={"rules_version": "default"}))
    (store.path("r1") / RULES_FILE).write_text('{"version": "default"}')
    (store.path("r1") / "reference.parquet").write_text("rows")
    store.activate("r1")
    return store


def test_a_good_file_is_told_with_its_name(tmp_path: Path) -> None:
    done = run(tmp_path, "rules", "check", str(written(tmp_path, SPRING)), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["version"] == "spring"
    assert Rules.model_validate(document["rules"]) == Rules.model_validate(SPRING)
    assert document["rules"]["exclude_current"] is True  # what holds without being said, too


def test_a_file_without_a_version_is_named_by_its_content(tmp_path: Path) -> None:
    done = run(tmp_path, "rules", "check", str(written(tmp_path, {"exclude_seen": True})))
    assert done.stdout == f"valid; version {Rules(exclude_seen=True).name}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"exclude_sen": True}, ["exclude_sen:", "got True"]),
        ({"pins": [{"item": "a", "place": 0}]}, ["pins.0.place:", "got 0"]),
        ({"pins": [{"item": i, "place": 1} for i in "ab"]}, ["pins: two of them name the place"]),
        ("not JSON", ["Invalid JSON"]),
    ],
)
def test_a_bad_file_is_wrong_use_and_its_field_is_named(
    tmp_path: Path, content: object, said: list[str]
) -> None:
    path = written(tmp_path, content)
    done = run(tmp_path, "rules", "check", str(path), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for text in (f"error: rules {path}: ", *said):
        assert text in done.stderr


def test_a_file_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    done = run(tmp_path, "rules", "check", str(tmp_path / "none.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.json" in done.stderr.replace("\n", "")


def test_the_rules_of_the_live_release_are_shown(tmp_path: Path) -> None:
    none = run(tmp_path, "rules", "show")
    assert (none.returncode, none.stdout) == (1, "")
    assert "no release is live" in none.stderr
    live(tmp_path)
    shown = run(tmp_path, "rules", "show")
    assert (shown.returncode, Rules.model_validate_json(shown.stdout)) == (0, DEFAULT)


def test_rules_are_applied_to_a_new_release_and_the_old_one_keeps_its_own(tmp_path: Path) -> None:
    store, path = live(tmp_path), written(tmp_path, SPRING)
    done = run(tmp_path, "rules", "apply", str(path), "--no-activate", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["rules_version"], document["live"]) == ("spring", False)
    assert store.active_version() == "r1"
    made = store.get(document["release"])
    assert store.rules(made) == Rules.model_validate(SPRING)
    assert (store.path(made.version) / "reference.parquet").read_text() == "rows"
    for version, expected in ((made.version, "spring"), ("r1", "default")):
        shown = run(tmp_path, "rules", "show", version, "--json")
        assert json.loads(shown.stdout)["version"] == expected


def test_a_bad_file_makes_no_release(tmp_path: Path) -> None:
    store, path = live(tmp_path), written(tmp_path, {"category_quota": {"most": 0}})
    done = run(tmp_path, "rules", "apply", str(path), "--no-activate")
    assert (done.returncode, done.stdout) == (2, "")
    assert "category_quota.most:" in done.stderr
    assert store.versions() == ["r1"]
