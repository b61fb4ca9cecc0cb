"""The way of a model, from the lake to a live release."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from contracts.errors import NextclickError, ReleaseError, ServiceError
from contracts.release import Release, ReleaseStore
from contracts.settings import ROOT, Settings
from local_stack.cli.progress import StepProgress

if TYPE_CHECKING:
    from training.train import Options

STEPS = 5
"""Steps of `rebuild`."""
SPARK_SECONDS = 3600
SWITCH_SECONDS = 60


def rebuild(
    settings: Settings, progress: StepProgress, options: Options, activate_it: bool
) -> Release:
    """Spark jobs, `feast apply`, training with everything up to the release, materialisation,
    and the switch to it."""
    from feast_engine.store import apply, materialize
    from training.train import train

    now = datetime.now(UTC)
    with progress.step("Spark: clean, sessions, item features, queries"):
        tables = run_spark_jobs(settings, now, progress)
        progress.note(", ".join(f"{name} {rows:,} rows" for name, rows in tables["rows"].items()))
    with progress.step("feast apply"):
        apply(settings)
    with progress.step("train: encoder, candidates, point-in-time features, ranker, parity"):
        release = train(settings, options, report=progress).release
    with progress.step("feast materialize: item features into Redis"):
        materialize(settings, now, progress)
    with progress.step(f"release {release.version}"):
        if activate_it:
            activate(settings, release.version, progress)
        else:
            progress.note(f"not live: ./nextclick release activate {release.version}")
    return release


def run_spark_jobs(
    settings: Settings,
    now: datetime,
    report: Callable[[str, int, int], None],
    jobs: Sequence[str] = (),
) -> dict[str, Any]:
    """These jobs (none: all) as one Spark application of its own process; the summary that it
    prints."""
    from local_stack.java import ensure_java

    java = ensure_java(settings)
    command = [sys.executable, "-m", "spark_jobs", "run", "--json", "--now", str(_ms(now))]
    if jobs:
        command += ["--jobs", ",".join(jobs)]
    log = settings.logs / "spark.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = _spark_environment(settings, java)
    with log.open("w") as sink, subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        last = _follow(process, sink, report)
        output = process.stdout.read() if process.stdout else ""
        code = process.wait(timeout=SPARK_SECONDS)
    if code:
        raise _failed(code, last, log)
    return dict(json.loads(output))


def _spark_environment(settings: Settings, java: Path) -> dict[str, str]:
    import os  # the child's environment is ours plus the settings: nothing is read from it here

    return {**os.environ, **settings.environment(), "JAVA_HOME": str(java)}


def _follow(
    process: subprocess.Popen[str], sink: Any, report: Callable[[str, int, int], None]
) -> str:
    """Progress lines to the bar, everything to the log; the last line that was an error's."""
    last = ""
    for line in process.stderr or ():
        sink.write(line)
        try:
            step = json.loads(line)
            report(step["step"], step["done"], step["of"])
        except (ValueError, KeyError, TypeError):
            last = line.strip() or last
    return last


def _failed(code: int, last: str, log: Path) -> NextclickError:
    return ServiceError(
        f"the Spark jobs failed ({code}): {last.removeprefix('error: ')}; all of it is in {log}"
    )


def activate(settings: Settings, version: str, report: Callable[[str], None]) -> None:
    """Check a release as a whole, name it the live one, and wait until the API serves it.

    ReleaseError leaves the old release live.
    """
    from training.release import check_release

    store = ReleaseStore(settings.releases)
    release = store.get(version)
    report("check")
    check_release(settings, release)
    before = store.active_version()
    store.activate(version)
    report("switch")
    reason = _await_switch(settings, version)
    if reason:
        if before:
            store.activate(before)
        raise ReleaseError(
            f"the API refused release {version}: {reason}; {before or 'none'} stays live"
        )


def _await_switch(settings: Settings, version: str) -> str | None:
    """None when the API serves the release, or when there is no API that could; else the reason."""
    end = time.monotonic() + SWITCH_SECONDS
    state: dict[str, Any] = {}
    while time.monotonic() < end:
        try:
            state = httpx.get(f"{settings.api}/v1/release", timeout=5).json()
        except httpx.ConnectError:
            return None  # it is down: it loads the release when it starts
        except httpx.HTTPError:
            time.sleep(0.5)
            continue
        if state["release"] == version:
            return None
        refused = state.get("refused")
        if refused and refused["version"] == version:
            return str(refused["reason"])
        time.sleep(0.3)
    return f"it still serves {state.get('release')} after {SWITCH_SECONDS} s"


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
