"""The supervisor with services that a test can break at will."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.settings import Settings
from local_stack import process, supervisor
from local_stack.logs import log_path
from local_stack.service import Service
from local_stack.services import Definitions
from local_stack.state import ServiceState, Wanted, read_state, wanted_path, write

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path / "home"})


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PROBE_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "START_PROBE_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "back_off", lambda _: 0.05)


class Stub:
    """A service whose probe fails while `sick`."""

    def __init__(
        self, name: str, command: tuple[str, ...] = SLEEPER, needs: tuple[str, ...] = ()
    ) -> None:
        self.name, self.command, self.needs = name, command, needs
        self.sick = False

    def define(self, settings: Settings) -> Service:
        return Service(
            name=self.name,
            command=self.command,
            folder=settings.home / self.name,
            ports={},
            url="",
            version="",
            probe=self.probe,
            needs=self.needs,
            start_seconds=5.0,
            stop_seconds=2.0,
        )

    def probe(self) -> None:
        if self.sick:
            raise ConnectionError("sick")


class Running:
    """A supervisor in a thread of the test."""

    def __init__(self, settings: Settings, *stubs: Stub) -> None:
        self.settings = settings
        definitions: Definitions = {stub.name: stub.define for stub in stubs}
        self.supervisor = supervisor.Supervisor(settings, definitions)
        self.want({stub.name: 0 for stub in stubs})
        self.thread = threading.Thread(target=self.supervisor.run)
        self.thread.start()

    def want(self, generations: dict[str, int]) -> None:
        write(wanted_path(self.settings), Wanted(generations=generations))

    def state(self, name: str) -> ServiceState:
        state = read_state(self.settings)
        return state.services.get(name, ServiceState()) if state else ServiceState()

    def wait(
        self, name: str, wish: Callable[[ServiceState], bool], seconds: float = 10.0
    ) -> ServiceState:
        deadline = time.monotonic() + seconds
        while not wish(self.state(name)):
            assert time.monotonic() < deadline, f"{name} stays {self.state(name)}"
            time.sleep(0.02)
        return self.state(name)

    def stop(self) -> None:
        self.supervisor.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def run(settings: Settings, fast: None) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*stubs: Stub) -> Running:
        started.append(Running(settings, *stubs))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    assert process.processes_of(settings.home) == []


def test_back_off_doubles_up_to_half_a_minute() -> None:
    waits = [supervisor.back_off(failures) for failures in range(9)]
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_killed_service_comes_back_and_the_other_stays(run: Callable[..., Running]) -> None:
    running = run(Stub("first"), Stub("second"))
    first = running.wait("first", lambda state: state.ready)
    second = running.wait("second", lambda state: state.ready)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    again = running.wait("first", lambda state: state.ready and state.pid != first.pid)
    assert again.restarts == 1
    assert running.state("second") == second


def test_a_service_that_stops_answering_is_restarted(run: Callable[..., Running]) -> None:
    stub = Stub("hung")
    running = run(stub)
    before = running.wait("hung", lambda state: state.ready)
    stub.sick = True
    unready = running.wait("hung", lambda state: not state.ready)
    assert "sick" in unready.error
    running.wait("hung", lambda state: state.restarts == 1)
    stub.sick = False
    after = running.wait("hung", lambda state: state.ready)
    assert after.pid != before.pid


def test_one_missed_probe_is_no_reason_to_restart(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MISSES", 10_000)
    stub = Stub("busy")
    running = run(stub)
    before = running.wait("busy", lambda state: state.ready)
    stub.sick = True
    running.wait("busy", lambda state: not state.ready)
    stub.sick = False
    after = running.wait("busy", lambda state: state.ready)
    assert (after.pid, after.restarts) == (before.pid, 0)


def test_a_service_waits_for_what_it_needs(run: Callable[..., Running]) -> None:
    base, top = Stub("base"), Stub("top", needs=("base",))
    base.sick = True
    running = run(base, top)
    running.wait("base", lambda state: state.pid is not None)
    time.sleep(0.3)
    assert running.state("top").pid is None
    base.sick = False
    running.wait("top", lambda state: state.ready)


def test_a_command_that_ends_at_once_is_reported(
    run: Callable[..., Running], settings: Settings
) -> None:
    command = (sys.executable, "-c", "import sys; print('Error: no wood'); sys.exit(3)")
    stub = Stub("broken", command)
    stub.sick = True
    state = run(stub).wait("broken", lambda state: state.failures >= 2)
    assert not state.ready
    assert state.error == "ended with exit code 3"
    assert "Error: no wood" in log_path(settings, "broken").read_text()


def test_a_higher_generation_restarts_just_that_service(run: Callable[..., Running]) -> None:
    running = run(Stub("first"), Stub("second"))
    first = running.wait("first", lambda state: state.ready)
    second = running.wait("second", lambda state: state.ready)
    running.want({"first": 1, "second": 0})
    again = running.wait("first", lambda state: state.ready and state.generation == 1)
    assert again.pid != first.pid
    assert running.state("second").pid == second.pid


def test_grandchildren_end_with_their_service(
    run: Callable[..., Running], settings: Settings
) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    running = run(Stub("parent", (sys.executable, "-c", script)))
    state = running.wait("parent", lambda state: state.ready)
    deadline = time.monotonic() + 5
    while len(process.processes_of(settings.home, "parent")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert state.pid is not None
    os.kill(state.pid, signal.SIGKILL)
    running.wait("parent", lambda after: after.ready and after.pid != state.pid)
    parents = [each for each in process.processes_of(settings.home, "parent") if each.ppid() == 1]
    assert parents == []


@pytest.mark.parametrize(
    ("code", "text"), [(3, "ended with exit code 3"), (-9, "was killed by SIGKILL")]
)
def test_a_death_is_told_in_words(code: int, text: str) -> None:
    assert supervisor.death(code) == text
