"""Which environment counts as good, and what a person reads when one cannot be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import ROOT
from local_stack import bootstrap


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "product.txt"
    path.write_text("# made\nnumpy==2.0 \\\n    --hash=sha256:00\n    # via feast\nredis==6.0 \\\n")
    return path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been run; the environment's folder comes to be."""
    seen: list[list[str]] = []

    def run(command: list[str], log: Path, purpose: str) -> None:
        seen.append(command)
        if "venv" in command:
            Path(command[-1], "lib/python3.11/site-packages").mkdir(parents=True)

    monkeypatch.setattr(bootstrap, "_run", run)
    return seen


def make(folder: Path, lock: Path, satisfies: list[Path] | None = None) -> None:
    bootstrap.make_environment(folder, lock, lambda _: None, satisfies or [], importable=folder)


def test_a_made_environment_is_current_and_not_made_again(
    tmp_path: Path, lock: Path, commands: list[list[str]]
) -> None:
    make(tmp_path / "python", lock)
    made = len(commands)
    make(tmp_path / "python", lock)
    assert made == 3
    assert len(commands) == made
    path_file = tmp_path / "python/lib/python3.11/site-packages/nextclick.pth"
    assert path_file.read_text().strip() == str(tmp_path / "python")


def test_a_changed_lock_is_installed_into_the_same_environment(
    tmp_path: Path, lock: Path, commands: list[list[str]]
) -> None:
    make(tmp_path / "python", lock)
    lock.write_text("numpy==2.1\n")
    assert not bootstrap.is_current(tmp_path / "python", lock)
    commands.clear()
    make(tmp_path / "python", lock)
    assert not any("venv" in command for command in commands)
    assert bootstrap.is_current(tmp_path / "python", lock)


def test_a_half_made_environment_is_made_anew(
    tmp_path: Path, lock: Path, commands: list[list[str]]
) -> None:
    rest = tmp_path / "python/bin/left-over"
    rest.parent.mkdir(parents=True)
    rest.touch()
    make(tmp_path / "python", lock)
    assert not rest.exists()
    assert any("venv" in command for command in commands)


def test_a_failed_installation_leaves_no_stamp(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    make(tmp_path / "python", lock)
    lock.write_text("numpy==2.1\n")

    def fail(command: list[str], log: Path, purpose: str) -> None:
        raise bootstrap.BootstrapError("no network")

    monkeypatch.setattr(bootstrap, "_run", fail)
    with pytest.raises(bootstrap.BootstrapError, match="no network"):
        make(tmp_path / "python", lock)
    assert not (tmp_path / "python" / bootstrap.STAMP).exists()


def test_a_development_environment_serves_the_product_too(
    tmp_path: Path, lock: Path, commands: list[list[str]]
) -> None:
    development = tmp_path / "development.txt"
    development.write_text("numpy==2.0\nruff==1\n")
    make(tmp_path / "python", development, satisfies=[lock])
    assert bootstrap.is_current(tmp_path / "python", lock)
    assert bootstrap.is_current(tmp_path / "python", development)


def test_pip_takes_over_where_uv_fails(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def run(command: list[str], log: Path, purpose: str) -> None:
        seen.append(Path(command[0]).name)
        if "venv" in command:
            Path(command[-1], "lib/python3.11/site-packages").mkdir(parents=True)
        if seen[-1] == "uv":
            raise bootstrap.BootstrapError("unknown index")

    monkeypatch.setattr(bootstrap, "_run", run)
    make(tmp_path / "python", lock)
    assert seen[1:] == ["python", "uv", "python"]


def test_packages_are_counted_without_hashes_and_comments(lock: Path) -> None:
    assert bootstrap.packages(lock) == 2


def test_another_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 1, "final", 0))
    with pytest.raises(bootstrap.BootstrapError, match=r"needs Python 3\.11 and runs on 3\.12\.1"):
        bootstrap.check_interpreter()


def test_a_python_without_venv_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(bootstrap.BootstrapError, match=r"apt-get install python3\.11-venv"):
        bootstrap.check_interpreter()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: No matching distribution found for uv", "reaches a package index"),
        ("OSError: [Errno 28] No space left on device", "free some disk space"),
        ("", "reaches a package index"),
    ],
)
def test_a_failed_step_says_what_happened_and_what_to_do(output: str, advice: str) -> None:
    text = bootstrap.explain("fetch uv", f"Collecting uv\n{output}\n", Path("python.log"))
    assert text.startswith("could not fetch uv: ")
    assert output.strip() in text
    assert advice in text
    assert "\n" not in text


def test_a_bare_python_is_enough(tmp_path: Path) -> None:
    """Only the standard library, and nothing beside the script shadows it."""
    script = ROOT / "local_stack/bootstrap.py"
    python = Path(sys.base_prefix) / "bin/python3.11"
    done = subprocess.run(
        [python if python.exists() else sys.executable, "-I", "-S", str(script), "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--dev" in done.stdout


def test_a_machine_without_python_311_gets_one_line(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "readlink"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "local_stack/bootstrap.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nextclick: needs Python 3.11")
    assert done.stderr.count("\n") == 1
