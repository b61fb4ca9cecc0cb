"""The files by which the supervisor and the commands speak, all in the state folder.

stack.json         what the supervisor says: written by it, read by the commands
stack.wanted.json  what the commands want: written by them, read by the supervisor
supervisor.lock    held by the supervisor while it lives
stack.lock         held by a command that starts or stops the stack
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from contracts.deadline import Deadline
from contracts.settings import Settings

_Model = TypeVar("_Model", bound=BaseModel)
SECRETS = frozenset({"NEXTCLICK_REDIS_PASSWORD"})


class ServiceState(BaseModel):
    """One service as the supervisor sees it. `failures`: starts in a row that came to nothing."""

    pid: int | None = None
    ready: bool = False
    restarts: int = 0
    failures: int = 0
    generation: int = 0
    error: str = ""
    since: str = ""


class StackState(BaseModel):
    """What `stack.json` holds; `settings` are those that the services were started with."""

    supervisor: int
    settings: dict[str, str]
    services: dict[str, ServiceState]


class Wanted(BaseModel):
    """Services that shall run; a higher number asks for a restart."""

    generations: dict[str, int] = {}


def state_path(settings: Settings) -> Path:
    return settings.home / "stack.json"


def wanted_path(settings: Settings) -> Path:
    return settings.home / "stack.wanted.json"


def public_settings(settings: Settings) -> dict[str, str]:
    """The settings without secrets: to tell a stack's apart from a command's."""
    environment = settings.environment()
    return {name: value for name, value in environment.items() if name not in SECRETS}


def read_state(settings: Settings) -> StackState | None:
    """None when there is no state, or none of this version."""
    return _read(state_path(settings), StackState)


def read_wanted(settings: Settings) -> Wanted:
    return _read(wanted_path(settings), Wanted) or Wanted()


def _read(path: Path, kind: type[_Model]) -> _Model | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def write(path: Path, value: BaseModel) -> None:
    """Replace the file in one step: a reader sees the old value or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(value.model_dump_json(indent=2))
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def hold(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold a file lock. BlockingIOError when someone else holds it for longer than `patience` s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = Deadline(patience)
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.expired():
                    raise
            time.sleep(0.05)
        yield


def supervisor_lock(settings: Settings) -> Path:
    return settings.home / "supervisor.lock"


def is_supervised(settings: Settings) -> bool:
    """Whether a supervisor of this stack lives."""
    try:
        with supervisor_lock(settings).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may ask at once
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
