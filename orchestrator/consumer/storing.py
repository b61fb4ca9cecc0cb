"""A full buffer on its way into the lake, beside the loop that goes on with the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any, ParamSpec, TypeVar

from contracts.errors import ServiceError
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


class Storing:
    """Writes the files, waits until Kafka has the dead letters and until the online store would
    remember the states. Then the offsets may be committed."""

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
        self._executor = executor
        self.written: dict[Lake, int] = {}
        self._future: Future[Any] = executor.submit(self._run)

    def _run(self) -> str:
        self.written = self.buffer.store(self._lake)
        self._letters.settle(SETTLE_SECONDS)
        return self._states.confirm()

    def done(self, seconds: float = 0.0) -> bool:
        """Whether it has come to an end, waiting so long for it."""
        return self._future in wait([self._future], seconds).done

    def life(self) -> str:
        """The online store's life in which it remembers all states. Of a try that failed the
        ServiceError, and the next try begins."""
        try:
            life: str = self._future.result()
        except ServiceError:
            self._future = self._executor.submit(self._run)
            raise
        return life
