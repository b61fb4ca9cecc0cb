"""Ways to break a private stack: the consumer, Redis and the broker killed without warning."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack import process
from local_stack.stack import SUPERVISOR
from orchestrator.consumer.lake import STORES

STOP_SECONDS = 60.0
BACK_SECONDS = 120.0
_FENCE = re.compile(rb":fence\r\n.*?PXAT\r\n\$\d+\r\n\d+\r\n", re.DOTALL)


class ConsumerProcess:
    """The real consumer, started anew at once after each kill: the supervisor would wait longer and
    longer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        own = process.marks(self._settings.home, "consumer")
        environment = {**os.environ, **self._settings.environment(), **own}
        command = [sys.executable, "-P", "-m", "orchestrator.consumer"]
        with (self._settings.home / "consumer.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, patience: float) -> bool:
        """SIGKILL, then a new one: whether a store was under way. `patience`: so many seconds it
        may wait for one."""
        deadline = Deadline(patience)
        while not self._is_storing() and not deadline.expired():
            time.sleep(0.005)
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        found = self._is_storing()
        self.start()
        return found

    def _is_storing(self) -> bool:
        """Whether a note of a store says that it is neither committed nor void."""
        notes = Path(self._settings.lake, STORES).glob("[!.]*.json")
        with suppress(FileNotFoundError):
            return any(b'"void_since": null' in note.read_bytes() for note in notes)
        return False

    def stop(self) -> None:
        """SIGTERM: what is in memory is stored."""
        if self._process is None:
            return
        self._process.terminate()
        code = self._process.wait(STOP_SECONDS)
        if code:
            raise ServiceError(f"the consumer ended with {code}: {self.log()}")

    def log(self) -> str:
        return (self._settings.home / "consumer.log").read_text(errors="replace")[-2000:]


def kill_broker(settings: Settings) -> None:
    """SIGKILL; the supervisor starts it again."""
    _kill(settings, "kafka")


def kill_redis(settings: Settings) -> int:
    """SIGKILL, and cut off what its append-only file holds behind the last confirmed write, as a
    power cut may: so many bytes. The supervisor, which is stopped meanwhile, starts it again."""
    supervisors = process.processes_of(settings.home, SUPERVISOR)
    for supervisor in supervisors:
        supervisor.suspend()
    try:
        _kill(settings, "redis")
        return cut_unconfirmed(settings.home / "redis")
    finally:
        for supervisor in supervisors:
            supervisor.resume()


def await_back(settings: Settings, name: str) -> None:
    """Until the supervisor has a service ready that it did not have when this was called."""
    from local_stack.stack import status

    deadline = Deadline(BACK_SECONDS)
    while True:
        (service,) = [s for s in status(settings)["services"] if s["name"] == name]
        if service["ready"] and service["restarts"]:
            return
        if deadline.expired():
            raise ServiceError(f"{name} did not come back: {service['error']}")
        time.sleep(0.2)


def _kill(settings: Settings, name: str) -> None:
    found = process.processes_of(settings.home, name)
    if not found:
        raise ServiceError(f"{name} does not run and cannot be killed")
    for each in found:
        each.send_signal(signal.SIGKILL)
    deadline = Deadline(STOP_SECONDS)
    while process.processes_of(settings.home, name):  # a zombie has no environment
        if deadline.expired():
            raise ServiceError(f"{name} outlived SIGKILL")
        time.sleep(0.02)


def cut_unconfirmed(folder: Path) -> int:
    """Truncate the newest append-only file of a dead Redis behind its last fence
    (`orchestrator.consumer.durability`), as a power cut may: so many bytes."""
    files = sorted(folder.glob("appendonlydir/*.incr.aof"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ServiceError(f"{folder} has no append-only file")
    content = files[-1].read_bytes()
    end = max((found.end() for found in _FENCE.finditer(content)), default=0)
    os.truncate(files[-1], end)
    return len(content) - end
