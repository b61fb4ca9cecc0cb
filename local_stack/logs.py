"""The services' logs: one file each in HOME/logs."""

from __future__ import annotations

import datetime
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from contracts.errors import ServiceError
from contracts.settings import Settings

LARGE = 20 * 2**20
"""Bytes from which a log is set aside at the service's next start."""
START_MARK = "---- started "
FOLLOW_SECONDS = 0.2
_TROUBLE = re.compile(r"error|exception|fatal|failed|refused|no space", re.IGNORECASE)


def log_path(settings: Settings, name: str) -> Path:
    return settings.logs / f"{name}.log"


def begin_log(settings: Settings, name: str) -> IO[bytes]:
    """Open a service's log to append to it; a large one becomes NAME.log.1 first."""
    path = log_path(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LARGE:
        path.replace(path.with_name(f"{path.name}.1"))
    log = path.open("ab")
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    log.write(f"{START_MARK}{when}\n".encode())
    log.flush()
    return log


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log."""
    with path.open(errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=lines)]


def essence(path: Path) -> str:
    """What the service said about its last failure: one line, "" when it said nothing."""
    if not path.exists():
        return ""
    said: list[str] = []
    for line in tail(path, 400):
        said = [] if line.startswith(START_MARK) else [*said, line.strip()]
    said = [line for line in said if line]
    trouble = [line for line in said if _TROUBLE.search(line)]
    return (trouble or said or [""])[-1][:300]


def read_log(settings: Settings, name: str, lines: int, *, follow: bool = False) -> Iterator[str]:
    """The last lines of a service's log, and with `follow` those that come, without end."""
    path = log_path(settings, name)
    if not path.exists():
        raise ServiceError(f"{name} has no log yet ({path}): start it with ./nextclick up")
    yield from tail(path, lines)
    if follow:
        yield from _new_lines(path)


def _new_lines(path: Path) -> Iterator[str]:
    with path.open(errors="replace") as file:
        file.seek(0, 2)
        partial = ""
        while True:
            partial += file.readline()
            if partial.endswith("\n"):
                yield partial.rstrip("\n")
                partial = ""
            else:
                time.sleep(FOLLOW_SECONDS)
