"""The supervisor: starts the services in order, keeps them answering, stops them in reverse order.

One thread keeps one service: start, probe until ready, probe on, and begin again when it dies or
stops answering. The main thread follows what the commands want (`stack.wanted.json`) and waits for
SIGTERM. Run as `python -m local_stack.supervisor`, by `up`.
"""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from contracts.deadline import Deadline
from contracts.errors import NextclickError, ServiceError
from contracts.settings import Settings
from local_stack import process
from local_stack.logs import begin_log
from local_stack.service import Service
from local_stack.services import DEFINITIONS, Definitions
from local_stack.state import (
    ServiceState,
    StackState,
    hold,
    public_settings,
    read_wanted,
    state_path,
    supervisor_lock,
    wanted_path,
    write,
)

TICK_SECONDS = 0.1
PROBE_EVERY_SECONDS = 2.0
START_PROBE_SECONDS = 0.2
MISSES = 5
"""Failed probes in a row until a service counts as hung: a busy machine misses one or two."""
STEADY_SECONDS = 30.0
"""A service that ran this long begins its back-off anew."""


def back_off(failures: int) -> float:
    """Seconds to wait before the next start, after so many failures in a row."""
    return min(30.0, 0.5 * 2.0 ** (failures - 1)) if failures else 0.0


class Interrupted(Exception):  # no error: someone asked
    """The service was asked to stop or to begin anew."""


class Keeper(threading.Thread):
    """Keeps one service running until `stop`."""

    def __init__(
        self,
        define: Callable[[Settings], Service],
        settings: Settings,
        others: Mapping[str, Keeper],
        changed: Callable[[], None],
        generation: int,
    ) -> None:
        self.service = define(settings)
        super().__init__(name=self.service.name, daemon=True)
        self.state = ServiceState(generation=generation)
        self.was_ready = threading.Event()
        self._define, self._settings = define, settings
        self._others, self._changed = others, changed
        self._wanted = generation
        self._stopping = False
        self._wake = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Ask for the end; `join` waits for it."""
        self._stopping = True
        self._wake.set()

    def follow(self, generation: int) -> None:
        """Begin anew where a command asked for it since the last start."""
        if generation != self._wanted:
            self._wanted = generation
            self._wake.set()

    def run(self) -> None:
        try:
            self._await_needed()
        except Interrupted:
            return
        while not self._stopping:
            self._wake.clear()
            self._live()

    def _await_needed(self) -> None:
        """The first start waits for what the service needs, where that is wanted at all."""
        for name in self.service.needs:
            needed = self._others.get(name)
            while needed is not None and not needed.was_ready.is_set():
                self._pause(TICK_SECONDS)

    def _live(self) -> None:
        """One life of the service, from its start to its end, and the pause after it."""
        began = time.monotonic()
        try:
            self._start()
            self._watch()
        except Interrupted:
            self._end("")
        except Exception as error:  # noqa: BLE001  # whatever went wrong, begin anew
            steady = self.was_ready.is_set() and time.monotonic() - began > STEADY_SECONDS
            self._end(describe(error), failures=1 if steady else self.state.failures + 1)
            self._rest()

    def _rest(self) -> None:
        seconds = back_off(self.state.failures)
        say(f"{self.name}: {self.state.error}; starts again in {seconds:g} s")
        self._wake.wait(seconds)

    def _start(self) -> None:
        """Begin the process and wait until its probe succeeds."""
        self._note(generation=self._wanted)
        process.end(self._settings.home, self.name, self.service.stop_seconds)
        self.service = self._define(self._settings)
        self._process = self._spawn()
        self._note(pid=self._process.pid, since=now())
        deadline = Deadline(self.service.start_seconds)
        while (problem := self._probe()) is not None:
            if deadline.expired():
                raise ServiceError(f"not ready after {self.service.start_seconds:g} s: {problem}")
            self._pause_alive(START_PROBE_SECONDS)
        self._check_alive()  # else someone else answered
        self._note(ready=True, error="", since=now())
        self.was_ready.set()
        say(f"{self.name}: ready, pid {self.state.pid}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        service, settings = self.service, self._settings
        service.folder.mkdir(parents=True, exist_ok=True)
        service.prepare()
        environment = {**os.environ, **settings.environment(), **service.environment}
        environment |= process.marks(settings.home, service.name)
        with begin_log(settings, service.name) as log:
            return subprocess.Popen(
                service.command,
                cwd=service.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _watch(self) -> None:
        """Probe until the service dies or has missed too many probes in a row."""
        missed = 0
        began = time.monotonic()
        while True:
            self._pause_alive(PROBE_EVERY_SECONDS)
            problem = self._probe()
            missed = 0 if problem is None else missed + 1
            if missed >= MISSES:
                raise ServiceError(f"does not answer: {problem}")
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else self.state.failures
            self._note(ready=problem is None, error=problem or "", failures=failures)

    def _probe(self) -> str | None:
        """None when the service answers as it should, else what was wrong."""
        try:
            self.service.probe()
        except Exception as error:  # noqa: BLE001  # each client has errors of its own
            return describe(error)
        return None

    def _pause(self, seconds: float) -> None:
        if self._wake.wait(seconds):
            raise Interrupted

    def _pause_alive(self, seconds: float) -> None:
        """Wait; raise as soon as the process is dead or someone asks."""
        deadline = Deadline(seconds)
        while not deadline.expired():
            self._check_alive()
            self._pause(min(TICK_SECONDS, deadline.remaining()))

    def _check_alive(self) -> None:
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise ServiceError(death(code))

    def _end(self, error: str, failures: int = 0) -> None:
        """Leave no process of this service behind."""
        self._note(ready=False)
        process.end(self._settings.home, self.name, self.service.stop_seconds)
        if self._process is not None:
            self._process.wait(timeout=5)
            self._process = None
        restarts = self.state.restarts + (0 if self._stopping else 1)
        self._note(pid=None, error=error, failures=failures, restarts=restarts, since=now())

    def _note(self, **changes: object) -> None:
        fresh = self.state.model_copy(update=changes)
        if fresh != self.state:
            self.state = fresh
            self._changed()


class Supervisor:
    """All keepers, in starting order."""

    def __init__(self, settings: Settings, definitions: Definitions = DEFINITIONS) -> None:
        self._settings, self._definitions = settings, definitions
        self._keepers: dict[str, Keeper] = {}
        self._stop = threading.Event()
        self._writing = threading.Lock()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Follow what is wanted until `stop`, then end everything in reverse order."""
        self._write()
        seen = -1
        try:
            while not self._stop.is_set():
                changed = self._wanted_changed()
                if changed != seen:
                    seen = changed
                    self._follow()
                self._stop.wait(TICK_SECONDS)
        finally:
            self._end()

    def _wanted_changed(self) -> int:
        try:
            return wanted_path(self._settings).stat().st_mtime_ns
        except FileNotFoundError:
            return -1

    def _follow(self) -> None:
        generations = read_wanted(self._settings).generations
        for name, define in self._definitions.items():
            if name not in generations:
                continue
            if name in self._keepers:
                self._keepers[name].follow(generations[name])
            else:
                self._keep(name, define, generations[name])

    def _keep(self, name: str, define: Callable[[Settings], Service], generation: int) -> None:
        keeper = Keeper(define, self._settings, self._keepers, self._write, generation)
        self._keepers[name] = keeper
        keeper.start()

    def _end(self) -> None:
        order = [name for name in self._definitions if name in self._keepers]
        for name in reversed(order):
            keeper = self._keepers[name]
            say(f"{name}: stopping")
            keeper.stop()
            keeper.join(keeper.service.stop_seconds + 15)

    def _write(self) -> None:
        with self._writing:
            services = {name: keeper.state for name, keeper in list(self._keepers.items())}
            state = StackState(
                supervisor=os.getpid(),
                settings=public_settings(self._settings),
                services=services,
            )
            try:
                write(state_path(self._settings), state)
            except OSError as error:  # a full disk must not end the services
                say(f"could not write {state_path(self._settings)}: {error}")


def describe(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return (
        text[:300] if isinstance(error, NextclickError) else f"{type(error).__name__}: {text}"[:300]
    )


def death(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def say(text: str) -> None:
    """A line in the supervisor's log."""
    sys.stdout.write(f"{now()} {text}\n")
    sys.stdout.flush()


def main() -> int:
    settings = Settings.from_environment()
    supervisor = Supervisor(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        with hold(supervisor_lock(settings), patience=5.0):  # `is_supervised` holds it for a moment
            say(f"supervisor {os.getpid()} of {settings.home}")
            supervisor.run()
            say("supervisor ends")
    except BlockingIOError:
        say(f"a supervisor of {settings.home} runs already")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
