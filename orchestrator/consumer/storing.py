"""What goes on beside the loop: states on their way online, full buffers on their way into the lake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from typing import Generic, ParamSpec, TypeVar

from contracts.errors import ServiceError
from contracts.session import SessionState
from contracts.tables import Lake
from orchestrator.consumer.buffer import LakeBuffer
from orchestrator.consumer.dead_letters import DeadLetters
from orchestrator.consumer.ports import LakeTables, States

SETTLE_SECONDS = 10.0
"""Time limit of one try for dead letters to be stored."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class AtOnce(Executor):
    """Does what it is given, in the caller's thread."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # handed on to whoever asks for the result
            future.set_exception(error)
        return future


class Attempt(Generic[_T]):
    """An action that an executor has begun, and begins again when it has failed."""

    def __init__(self, action: Callable[[], _T], executor: Executor) -> None:
        self._action, self._executor = action, executor
        self._future = executor.submit(action)

    def done(self, seconds: float = 0.0) -> bool:
        """Whether it has come to an end, waiting so long for it."""
        return self._future in wait([self._future], seconds).done

    def result(self) -> _T:
        """Of a try that failed the ServiceError, and the next try begins."""
        try:
            return self._future.result()
        except ServiceError:
            self._future = self._executor.submit(self._action)
            raise


class Writing:
    """States of a batch that was polled at `began` (monotonic seconds), on their way online."""

    def __init__(
        self, changed: Mapping[str, SessionState], began: float, states: States, executor: Executor
    ) -> None:
        self.rows, self.began = len(changed), began
        self.attempt = Attempt(lambda: states.write(changed), executor)


class Storing:
    """Writes the files, waits until Kafka has the dead letters and until the online store would
    remember the states. Then the offsets may be committed. The result of `attempt` is the online
    store's life in which it remembers all states."""

    def __init__(
        self,
        buffer: LakeBuffer,
        letters: DeadLetters,
        lake: LakeTables,
        states: States,
        executor: Executor,
    ) -> None:
        self.buffer = buffer
        self._letters, self._lake, self._states = letters, lake, states
        self.written: dict[Lake, int] = {}
        self.attempt = Attempt(self._run, executor)

    def _run(self) -> str:
        self.written = self.buffer.store(self._lake)
        self._letters.settle(SETTLE_SECONDS)
        return self._states.confirm()
