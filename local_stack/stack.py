"""The commands over the embedded stack: up, down, restart, status, logs.

Progress goes to `report`, one line a call; problems are ServiceError or UsageError.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from contracts.deadline import Deadline
from contracts.errors import NextclickError, ServiceError, UsageError
from contracts.release import ReleaseStore
from contracts.settings import Settings
from local_stack import process
from local_stack.checks import check_disk, check_ports
from local_stack.logs import begin_log, essence, log_path, read_log
from local_stack.services import DEFINITIONS, bring_tools, default_services, in_order
from local_stack.state import (
    ServiceState,
    Wanted,
    hold,
    is_supervised,
    public_settings,
    read_state,
    read_wanted,
    state_path,
    wanted_path,
    write,
)
from local_stack.tools import Report
from local_stack.triton import remove_regions

SUPERVISOR = "supervisor"
POLL_SECONDS = 0.1
COMMAND_SECONDS = 120.0
"""How long a command waits for another one that is starting or stopping the stack."""
UNSEEN_LOOKS = 10
"""So many looks in a row have to miss a process before it counts as gone."""
SPAWN_SECONDS = 30.0
FAILED_STARTS = 2
"""After so many `up` reports that a service does not start; the supervisor goes on trying."""


def silent(text: str) -> None:
    """A `report` that says nothing."""


def up(settings: Settings, only: Sequence[str] | None = None, report: Report = silent) -> None:
    """Start these services (None: `default_services`) and wait until each is ready; harmless when they run.

    ServiceError says which service does not start, what it said and what to do.
    """
    names = in_order(default_services(settings) if only is None else only)
    bring_tools(settings, names, report)
    settings.home.mkdir(parents=True, exist_ok=True)
    with _one_command(settings, report):
        check_disk(settings.home)
        if is_supervised(settings):
            _check_same_settings(settings)
        else:
            _clean(settings, report)
        _check_ports(settings, names)
        _want(settings, names)
        if not is_supervised(settings):
            _spawn_supervisor(settings)
    _await_ready(settings, names, report)


def down(settings: Settings, report: Report = silent) -> None:
    """Stop everything in reverse order, whatever state it is in; leave no process behind."""
    if not settings.home.exists():
        return
    with _one_command(settings, report):
        if is_supervised(settings):
            report("stopping the stack ...")
            _stop_supervisor(settings)
        _clean(settings, report)


def restart(settings: Settings, names: Sequence[str], report: Report = silent) -> None:
    """Stop and start these running services; back when they are ready."""
    names = in_order(names)
    with _one_command(settings, report):
        if not is_supervised(settings):
            raise ServiceError("the stack is down: start it with ./nextclick up")
        wanted = read_wanted(settings).generations
        missing = [name for name in names if name not in wanted]
        if missing:
            raise ServiceError(f"{', '.join(missing)} not started: ./nextclick up")
        _write_wanted(settings, wanted | {name: wanted[name] + 1 for name in names})
    _await_ready(settings, names, report)


def status(settings: Settings) -> dict[str, Any]:
    """`{"release": version or None, "services": [...]}`, the stack up or down.

    A service: name, ready, url, pid, rss_mb (its whole process tree), version, restarts, error.
    """
    state = read_state(settings) if is_supervised(settings) else None
    known = state.services if state is not None else {}
    running = process.by_service(settings.home)
    services = []
    for name, define in DEFINITIONS.items():
        if name not in known and name not in default_services(settings):
            continue
        service, seen = define(settings), known.get(name, ServiceState())
        services.append(
            {
                "name": name,
                "ready": seen.ready,
                "url": service.url,
                "pid": seen.pid,
                "rss_mb": process.resident_mb(running.get(name, ())) if seen.pid else None,
                "version": service.version,
                "restarts": seen.restarts,
                "error": seen.error,
            }
        )
    return {"release": _release(settings), "services": services}


def logs(settings: Settings, name: str, lines: int = 50, follow: bool = False) -> Iterator[str]:
    """Lines of a service's log, or of another log beside it (supervisor, spark ...)."""
    others = {path.stem for path in settings.logs.glob("*.log")} - DEFINITIONS.keys()
    known = [*DEFINITIONS, *sorted(others | {SUPERVISOR})]
    if name not in known:
        raise UsageError(f"{name!r} is no service; there are: {', '.join(known)}")
    return read_log(settings, name, lines, follow=follow)


def _release(settings: Settings) -> str | None:
    try:
        release = ReleaseStore(settings.releases).active()
    except NextclickError:  # a damaged release: `release show` says what is wrong with it
        return None
    return None if release is None else release.version


@contextlib.contextmanager
def _one_command(settings: Settings, report: Report) -> Iterator[None]:
    """One command at a time starts or stops the stack."""
    lock = settings.home / "stack.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(hold(lock, patience=0.5))
        except BlockingIOError:
            report("waiting for another nextclick that is starting or stopping the stack ...")
            try:
                held.enter_context(hold(lock, patience=COMMAND_SECONDS))
            except BlockingIOError:
                raise ServiceError(
                    f"another nextclick has been starting or stopping {settings.home} for"
                    f" {COMMAND_SECONDS:g} s: end it and try again"
                ) from None
        yield


def _check_same_settings(settings: Settings) -> None:
    """A running stack keeps the settings that it was started with."""
    state = read_state(settings)
    if state is None:
        return
    own = public_settings(settings)
    different = [name for name, value in own.items() if state.settings.get(name) != value]
    if different:
        name = different[0]
        raise ServiceError(
            f"the stack runs with {name}={state.settings.get(name)}, this command has"
            f" {own[name]}: run ./nextclick down first, or drop the setting"
        )


def _check_ports(settings: Settings, names: Sequence[str]) -> None:
    kept = read_wanted(settings).generations
    ports: dict[str, int] = {}
    for name in names:
        if name not in kept:
            ports |= DEFINITIONS[name](settings).ports
    check_ports(settings.host, ports)


def _want(settings: Settings, names: Sequence[str]) -> None:
    _write_wanted(settings, dict.fromkeys(names, 0) | read_wanted(settings).generations)


def _write_wanted(settings: Settings, generations: dict[str, int]) -> None:
    write(wanted_path(settings), Wanted(generations=generations))


def _spawn_supervisor(settings: Settings) -> None:
    """Start it in a session of its own, as no child of this command."""
    environment = {**os.environ, **settings.environment()}
    environment |= process.marks(settings.home, SUPERVISOR)
    with begin_log(settings, SUPERVISOR) as log:
        subprocess.run(
            ["setsid", "--fork", sys.executable, "-P", "-m", "local_stack.supervisor"],
            cwd=settings.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SPAWN_SECONDS,
            check=True,
        )
    deadline = Deadline(SPAWN_SECONDS)
    unseen = 0
    while not is_supervised(settings) or read_state(settings) is None:
        # a process that is being started shows no environment for a moment: one look proves nothing
        unseen = 0 if process.processes_of(settings.home, SUPERVISOR) else unseen + 1
        if deadline.expired() or unseen > UNSEEN_LOOKS:
            raise ServiceError(
                f"the supervisor did not start: {essence(log_path(settings, SUPERVISOR))};"
                f" its log: {log_path(settings, SUPERVISOR)}"
            )
        time.sleep(POLL_SECONDS)


def _await_ready(settings: Settings, names: Sequence[str], report: Report) -> None:
    """Follow the supervisor's word until all these are ready."""
    began = time.monotonic()
    waiting = list(names)
    limit = sum(DEFINITIONS[name](settings).start_seconds for name in names) + 30.0
    while waiting:
        _check_supervised(settings)
        for name in [name for name in waiting if _is_ready(settings, name)]:
            report(f"{name} ready ({time.monotonic() - began:.1f} s)")
            waiting.remove(name)
        _check_starts(settings)
        if waiting and time.monotonic() - began > limit:
            raise ServiceError(
                f"{', '.join(waiting)} not ready after {limit:g} s; see {settings.logs}"
            )
        time.sleep(POLL_SECONDS if waiting else 0)


def _check_supervised(settings: Settings) -> None:
    if not is_supervised(settings):
        raise ServiceError(
            "the stack was stopped while it started, or its supervisor died; see"
            f" {log_path(settings, SUPERVISOR)}"
        )


def _is_ready(settings: Settings, name: str) -> bool:
    state = read_state(settings)
    wanted = read_wanted(settings).generations.get(name, 0)
    seen = None if state is None else state.services.get(name)
    return seen is not None and seen.ready and seen.generation == wanted


def _check_starts(settings: Settings) -> None:
    """ServiceError for a service that has failed to start several times."""
    state = read_state(settings)
    for name, seen in (state.services if state is not None else {}).items():
        if not seen.ready and seen.failures >= FAILED_STARTS:
            path = log_path(settings, name)
            said = essence(path)
            hint = DEFINITIONS[name](settings).hint
            parts = [f"{name} does not start: {seen.error or 'it died'}"]
            parts += [f"it said: {said}"] if said else []
            parts += [hint] if hint else []
            raise ServiceError("; ".join([*parts, f"its log: {path}"]))


def _stop_supervisor(settings: Settings) -> None:
    """SIGTERM and wait as long as an orderly stop may take; what remains, `_clean` ends."""
    for supervisor in process.processes_of(settings.home, SUPERVISOR):
        supervisor.terminate()
        supervisor.resume()
    limit = sum(define(settings).stop_seconds for define in DEFINITIONS.values()) + 10.0
    deadline = time.monotonic() + limit
    while is_supervised(settings) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _clean(settings: Settings, report: Report) -> None:
    """End what a killed supervisor left, in reverse order, and forget its state; data stays."""
    process.end(settings.home, SUPERVISOR, 1.0)
    left = process.by_service(settings.home)
    if left:
        report(f"ending what was left behind: {', '.join(left)} ...")
    for name in [*reversed(DEFINITIONS), *left]:
        if name in left:
            seconds = DEFINITIONS[name](settings).stop_seconds if name in DEFINITIONS else 5.0
            process.end(settings.home, name, seconds)
    remove_regions(settings)
    for path in (state_path(settings), wanted_path(settings)):
        path.unlink(missing_ok=True)
