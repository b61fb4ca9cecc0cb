"""Finding and ending the processes of one embedded stack.

Every process that the supervisor starts carries two variables that its descendants inherit: the
state folder of the stack and the service's name. So they are found after a SIGKILL of the
supervisor too, whatever they have forked. The names do not begin with NEXTCLICK_: they are no
settings.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

HOME_MARK = "STACK_OF_NEXTCLICK"
SERVICE_MARK = "SERVICE_OF_NEXTCLICK"
POLL_SECONDS = 0.05


def marks(home: Path, service: str) -> dict[str, str]:
    """Variables for a process of this stack."""
    return {HOME_MARK: str(home), SERVICE_MARK: service}


def processes_of(
    home: Path, service: str | None = None, *, whole: bool = False
) -> list[psutil.Process]:
    """Live processes of the stack in `home`, of one service or all; `whole`: zombie children too."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.Error, OSError):  # another user's, or gone meanwhile
            continue
        if environment.get(HOME_MARK) == str(home) and service in (
            None,
            environment.get(SERVICE_MARK),
        ):
            found.append(process)
    return found + _zombies(found) if whole else found


def by_service(home: Path) -> dict[str, list[psutil.Process]]:
    """Live processes of the stack, by service, from one look at the machine."""
    found: dict[str, list[psutil.Process]] = {}
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            found.setdefault(process.environ()[SERVICE_MARK], []).append(process)
    return found


def _zombies(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Dead children that no one has waited for: they have no environment any more."""
    dead = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            dead += [
                child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE
            ]
    return dead


def resident_mb(processes: Iterable[psutil.Process]) -> float:
    """Memory of these processes together, in MB."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return round(total / 2**20, 1)


def end(home: Path, service: str, seconds: float) -> int:
    """End a service: SIGTERM to its topmost processes, SIGKILL to all after `seconds`.

    Returns how many processes had to be killed.
    """
    processes = processes_of(home, service)
    ids = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in ids:
                process.terminate()
                process.resume()  # a stopped process would not hear it
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not processes_of(home, service):
            return 0
        time.sleep(POLL_SECONDS)
    return _kill(home, service)


def _kill(home: Path, service: str) -> int:
    """SIGKILL until none is left: a process may fork while it is looked for."""
    killed = 0
    deadline = time.monotonic() + 5.0
    while (left := processes_of(home, service)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed += 1
        time.sleep(POLL_SECONDS)
    return killed
