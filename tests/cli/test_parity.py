"""`parity` and `replay` as a shell sees them, where there is nothing to prove yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.errors import UsageError
from local_stack.cli.parity import parity, replay


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEXTCLICK_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since: got 'yesterday'"),
        (["--until", "-3"], "--until: got '-3'"),
        (["--since", "0", "--hours", "1"], "--hours and --since both say where to begin"),
        (["--since", "5", "--until", "5"], "no time lies between them"),
        (["--offline", "/no/such/folder"], "--offline: there is no folder /no/such/folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], said: str) -> None:
    error = CliRunner().invoke(parity, arguments).exception
    assert isinstance(error, UsageError)
    assert said in str(error)


@pytest.mark.parametrize(
    "arguments",
    [["--threshold", "2"], ["--threshold", "nan"], ["--lag-ms", "-1"], ["--sample", "x"]],
)
def test_numbers_out_of_range_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(parity, arguments).exit_code == 2


def test_an_unknown_answer_is_a_message(home: Path) -> None:
    error = CliRunner().invoke(replay, ["nothing"]).exception
    assert isinstance(error, UsageError)
    assert f"no answer 'nothing' is in the lake {home}/lake/served" in str(error)
