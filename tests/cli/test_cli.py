"""The command `./nextclick`, as a shell sees it: exit codes, what goes to stdout, what to stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from contracts.errors import UsageError
from contracts.features import FEATURE_SERVICE, RANKED, fingerprint
from contracts.release import Release, ReleaseStore
from contracts.settings import ROOT
from local_stack.cli.data import parse_mapping
from local_stack.cli.main import assembled
from local_stack.show import answer_text, item_text


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "NEXTCLICK_HOME": str(home),
        "NEXTCLICK_API_PORT": "9",
    }
    command = [sys.executable, "-m", "local_stack", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def every_command() -> list[list[str]]:
    def below(group: click.Group, path: list[str]) -> list[list[str]]:
        paths = [path]
        for name, command in group.commands.items():
            deeper = [*path, name]
            paths += below(command, deeper) if isinstance(command, click.Group) else [deeper]
        return paths

    return below(assembled(), [])


def test_the_commands_that_others_call_are_there() -> None:
    names = {" ".join(path) for path in every_command()}
    promised = {
        "up", "down", "status", "logs", "data generate", "data import", "train", "release list",
        "release show", "release activate", "recommend", "drift report", "demo",
    }  # fmt: skip
    assert promised <= names


def test_every_command_has_help_and_every_leaf_json() -> None:
    for path in every_command():
        command: click.Command = assembled()
        for name in path:
            assert isinstance(command, click.Group)
            command = command.commands[name]
        assert command.help, path
        if not isinstance(command, click.Group):
            assert "--json" in {option for each in command.params for option in each.opts}, path


def test_help_answers_without_a_stack(tmp_path: Path) -> None:
    done = run(tmp_path, "release", "activate", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "VERSION" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["up", "--nonsense"], ["recommend", "-k", "many"], ["data", "generate", "x", "--items", "0"]],
)  # fmt: skip
def test_wrong_use_is_2(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_status_of_a_stack_that_is_down(tmp_path: Path) -> None:
    done = run(tmp_path, "status", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["release"] is None
    assert document["memory"] is None
    names = ["redis", "kafka", "triton", "mlflow", "api", "consumer"]
    assert sorted(service["name"] for service in document["services"]) == sorted(names)
    for service in document["services"]:
        assert (service["ready"], service["pid"]) == (False, None)
        assert {"url", "rss_mb", "version"} <= service.keys()


def test_no_answer_says_how_to_start_the_stack(tmp_path: Path) -> None:
    done = run(tmp_path, "recommend", "--item", "1", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "./nextclick up" in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--events", str(tmp_path / "none.parquet"))
    assert done.returncode == 2
    assert "none.parquet" in done.stderr.replace("\n", "")


def release(version: str) -> Release:
    return Release(
        version=version, created=datetime.now(UTC), ranker_version=1, mlflow_run="run",
        index_version="index", features=RANKED, fingerprint=fingerprint(),
        feature_service=FEATURE_SERVICE, rules_version="none", metrics={}, parity=0.0,
    )  # fmt: skip


def test_releases_are_listed_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path / "releases")
    for version in ("r1", "r2"):
        store.add(release(version))
    store.activate("r1")
    listed = json.loads(run(tmp_path, "release", "list", "--json").stdout)
    assert listed["active"] == "r1"
    assert [each["version"] for each in listed["releases"]] == ["r1", "r2"]
    shown = json.loads(run(tmp_path, "release", "show", "--json").stdout)
    assert shown["version"] == "r1"
    refused = run(tmp_path, "release", "activate", "r9")
    assert refused.returncode == 1
    assert "r1, r2" in refused.stderr


def test_a_setting_that_is_wrong_is_named(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "NEXTCLICK_HOME": str(tmp_path),
        "NEXTCLICK_DEADLINE_MS": "soon",
    }
    done = subprocess.run(
        [sys.executable, "-m", "local_stack", "status"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "NEXTCLICK_DEADLINE_MS" in done.stderr


def test_a_mapping_names_columns() -> None:
    assert parse_mapping("session=visit, item=sku") == {"session": "visit", "item": "sku"}
    assert parse_mapping(None) is None
    for wrong in ("", "session", "session=", "=visit"):
        with pytest.raises(UsageError, match="--map"):
            parse_mapping(wrong)


def test_an_answer_reads_well_whatever_is_known_of_its_items() -> None:
    answer = {
        "items": [
            {"item_id": "1", "score": 0.5, "sources": ["session", "vector"]},
            {"item_id": "22", "score": 0.25, "sources": []},
        ],
        "release": "r1",
        "degraded": ["ranking"],
        "timings_ms": {"total": 3.21},
    }
    described = {"1": {"brand": "acme", "category": "shoes", "price": 9.5}}
    text = answer_text(answer, described, ["9"])
    assert "acme · shoes · 9.50" in text
    assert "session, vector" in text
    assert "degraded: ranking" in text
    assert item_text("22", {"22": {"brand": None, "price": float("nan")}}) == "-"
