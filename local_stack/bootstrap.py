"""Makes a hash-pinned environment from a lock, with nothing but a bare Python 3.11.

Run by `bootstrap.sh` before anything is installed, hence the standard library only; the tools of
the embedded stack use `make_environment` for Triton's own environment too.

A stamp in the environment names the locks that it satisfies. It is written last and removed first,
so an environment without one is half made and is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
STAMP = "locks.sha256"
INSTALL_LIMIT = 1800
"""Seconds that one installation may take, on a slow line too."""

Report = Callable[[str], None]


class BootstrapError(Exception):
    """What went wrong and what to do, in one line."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout belongs to the command's own answer."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def is_current(folder: Path, lock: Path) -> bool:
    """Whether the environment was made whole from exactly this lock (or from one that includes it)."""
    stamp = folder / STAMP
    return stamp.exists() and digest(lock) in stamp.read_text().split()


def write_stamp(folder: Path, locks: Sequence[Path]) -> None:
    """Declare that the environment satisfies these locks."""
    lines = [f"{digest(lock)}  {lock.name}\n" for lock in locks]
    (folder / STAMP).write_text("".join(lines))


def packages(lock: Path) -> int:
    """How many packages a lock names."""
    lines = lock.read_text().splitlines()
    return sum("==" in line and not line.startswith((" ", "#")) for line in lines)


@contextlib.contextmanager
def only_one(path: Path, report: Report) -> Iterator[None]:
    """Hold a file lock: two commands at once must not make the same thing twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another nextclick that is making {path.with_suffix('')} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_environment(
    folder: Path,
    lock: Path,
    report: Report,
    satisfies: Sequence[Path] = (),
    importable: Path | None = None,
) -> None:
    """Make or renew the environment in `folder` from `lock`; at once when it is current.

    `satisfies` are the locks that `lock` is a superset of; `importable` becomes a path from which
    the environment imports. Raises BootstrapError.
    """
    if is_current(folder, lock):
        return
    check_interpreter()
    with only_one(folder.with_suffix(".lock"), report):
        if not is_current(folder, lock):
            _make(folder, lock, report, satisfies, importable)


def check_interpreter() -> None:
    """Raise BootstrapError unless this Python can make environments for us."""
    if sys.version_info[:2] != (3, 11):
        version = ".".join(map(str, sys.version_info[:3]))
        raise BootstrapError(
            f"needs Python 3.11 and runs on {version}; on Debian: apt-get install python3.11"
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise BootstrapError(
                f"this Python has no module {module}; on Debian: apt-get install python3.11-venv"
            )


def _make(
    folder: Path, lock: Path, report: Report, satisfies: Sequence[Path], importable: Path | None
) -> None:
    log = folder.with_suffix(".log")
    whole = (folder / STAMP).exists()
    (folder / STAMP).unlink(missing_ok=True)
    started = time.monotonic()
    if not whole:
        report(f"[1/3] making the environment {folder} ...")
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], log, "make the environment")
    report(f"[2/3] fetching the installer uv ... ({_elapsed(started)})")
    python = str(folder / "bin/python")
    pip = [python, "-m", "pip", "install", "--require-hashes", "--quiet", "-r"]
    _run([*pip, str(REQUIREMENTS / "bootstrap.txt")], log, "fetch uv")
    report(f"[3/3] installing {packages(lock)} packages of {lock.name} ... ({_elapsed(started)})")
    _install(python, lock, pip, log, report)
    if importable is not None:
        site = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        (site / "nextclick.pth").write_text(f"{importable}\n")
    write_stamp(folder, [lock, *satisfies])
    report(f"environment ready after {_elapsed(started)}")


def _install(python: str, lock: Path, pip: list[str], log: Path, report: Report) -> None:
    """By uv; by pip where uv fails, because pip may be set up for an index that uv does not know."""
    uv = [
        str(Path(python).with_name("uv")),
        "pip",
        "install",
        "--python",
        python,
        "--require-hashes",
    ]
    try:
        _run([*uv, "--quiet", "-r", str(lock)], log, "install")
    except BootstrapError:
        report(f"uv could not install (see {log}); trying pip, which takes some minutes ...")
        _run([*pip, str(lock)], log, f"install {lock.name}")


def _run(command: list[str], log: Path, purpose: str) -> None:
    with log.open("a+") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        begin = output.tell()
        try:
            code = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, timeout=INSTALL_LIMIT, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise BootstrapError(
                f"could not {purpose} within {INSTALL_LIMIT} s; see {log}"
            ) from None
        if code:
            output.seek(begin)
            raise BootstrapError(explain(purpose, output.read(), log))


def explain(purpose: str, output: str, log: Path) -> str:
    """One line for a failed step: the tool's own last error, and what to do."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
    if "No space left on device" in output:
        advice = "free some disk space (4 GB are needed) and run the command again"
    else:
        advice = "check that pip reaches a package index (network, proxy, pip config) and run the command again"
    return f"could not {purpose}: {errors[-1][:300]}; {advice}; whole output: {log}"


def _elapsed(started: float) -> str:
    return f"{time.monotonic() - started:.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bootstrap.sh", description="Make the product's environment."
    )
    parser.add_argument("--dev", action="store_true", help="with the tools that check and test")
    parser.add_argument(
        "--tools", type=Path, default=ROOT / ".tools", help="folder of the environments"
    )
    chosen = parser.parse_args(arguments)
    product, development = REQUIREMENTS / "product.txt", REQUIREMENTS / "development.txt"
    lock, included = (development, [product]) if chosen.dev else (product, [])
    try:
        folder = chosen.tools.absolute() / "python"
        make_environment(folder, lock, say, satisfies=included, importable=ROOT)
    except BootstrapError as error:
        say(f"nextclick: {error}")
        return 1
    except OSError as error:
        say(f"nextclick: could not make the environment in {chosen.tools}: {error}")
        return 1
    except KeyboardInterrupt:
        say("nextclick: interrupted; the next run makes the environment anew")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
