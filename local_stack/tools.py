"""Brings what a bare machine lacks: Kafka's jars, Triton's environment (Java: `java.py`).

Every function returns at once when its thing is there, reports progress as lines, and raises
ServiceError with what to do.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack import bootstrap
from local_stack.java import ensure_java, package_folder

Report = Callable[[str], None]

KAFKA_FILES = Path(__file__).parent / "kafka_broker"
KAFKA_VERSION = "4.4.0"
LIBPYTHON = "libpython3.11.so.1.0"
DOWNLOAD_SECONDS = 900


def ensure_kafka(settings: Settings, report: Report) -> Path:
    """Folder with the broker's jars, each checked against `kafka_broker/SHA256SUMS`."""
    wanted = KAFKA_FILES / "SHA256SUMS"
    home = settings.tools / "kafka"
    if bootstrap.is_current(home, wanted):
        return home / "libs"
    with bootstrap.only_one(home.with_suffix(".lock"), report):
        if not bootstrap.is_current(home, wanted):
            report(f"fetching the Kafka {KAFKA_VERSION} broker (44 jars, 43 MB) ...")
            _fetch_kafka(home, ensure_java(settings))
    return home / "libs"


def _fetch_kafka(home: Path, java_home: Path) -> None:
    """Into a temporary folder first, so that an interrupted fetch leaves nothing half done."""
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="kafka-") as folder:
        _run_ivy(Path(folder), java_home)
        fresh = Path(folder) / "kafka"
        check_hashes(fresh / "libs", KAFKA_FILES / "SHA256SUMS")
        bootstrap.write_stamp(fresh, [KAFKA_FILES / "SHA256SUMS"])
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)


def _run_ivy(folder: Path, java_home: Path) -> None:
    """Resolve with the Ivy inside PySpark, so that no Maven is needed."""
    ivy = next(iter((package_folder("pyspark") / "jars").glob("ivy-*.jar")), None)
    if ivy is None:
        raise ServiceError(
            "PySpark carries no ivy-*.jar: it is not the pinned version; see requirements/"
        )
    # never -types jar: two of the jars are of type bundle and would vanish without a word
    pattern = f"{folder}/kafka/libs/[artifact]-[revision](-[classifier]).[ext]"
    command = [str(java_home / "bin/java"), "-jar", str(ivy), "-cache", f"{folder}/ivy"]
    command += ["-ivy", str(KAFKA_FILES / "ivy.xml"), "-retrieve", pattern]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"Kafka's jars did not arrive within {DOWNLOAD_SECONDS} s: try again"
        ) from None
    if (
        done.returncode
        or "UNRESOLVED DEPENDENCIES" in done.stdout
        or "FAILED DOWNLOADS" in done.stdout
    ):
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        problem = next(
            (line for line in lines if "not found" in line or "FAILED" in line), lines[-1:] or ""
        )
        raise ServiceError(
            f"could not fetch Kafka's jars: {problem}; check that this machine reaches Maven Central"
            " (or its mirror) and run the command again"
        )


def check_hashes(folder: Path, sums: Path) -> None:
    """Leave exactly the files that `sums` lists; ServiceError names those missing or different."""
    lines = [line.split() for line in sums.read_text().splitlines()]
    expected = {name: digest for digest, name in lines}
    for name, digest in expected.items():
        path = folder / name
        if not path.exists():
            raise ServiceError(f"{name} was not delivered; it is listed in {sums}")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            raise ServiceError(
                f"{name} has SHA256 {found}, {sums} says {digest}: what was delivered is not what"
                " was tested; nothing of it is used"
            )
    for path in folder.iterdir():
        if path.name not in expected:
            path.unlink()


def ensure_triton_environment(settings: Settings, report: Report) -> Path:
    """Folder of Triton's own environment (numpy 1.26, lleaves), made from requirements/triton.txt."""
    folder = settings.tools / "triton"
    try:
        bootstrap.make_environment(folder, bootstrap.REQUIREMENTS / "triton.txt", report)
    except bootstrap.BootstrapError as error:
        raise ServiceError(f"Triton's environment: {error}") from None
    return folder


def libpython_folder() -> Path | None:
    """The interpreter's own library folder where it holds libpython: add it to LD_LIBRARY_PATH."""
    own = Path(str(sysconfig.get_config_var("LIBDIR")))
    return own if (own / LIBPYTHON).exists() else None


def ensure_libpython() -> None:
    """ServiceError unless Triton's Python stub finds the library that it is linked to."""
    if libpython_folder() is None and not _system_has(LIBPYTHON):
        raise ServiceError(
            f"Triton's Python stub needs {LIBPYTHON}; on Debian: apt-get install libpython3.11"
        )


def _system_has(library: str) -> bool:
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if ldconfig is None:
        return False
    listed = subprocess.run(
        [ldconfig, "-p"], capture_output=True, text=True, timeout=20, check=False
    )
    return library in listed.stdout
