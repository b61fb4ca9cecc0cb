"""Dead letters on their way to their topic: remembered until Kafka has stored them."""

from __future__ import annotations

from concurrent.futures import Future

from contracts.dead_letters import DeadLetter
from contracts.errors import ServiceError
from contracts.events import Topic
from orchestrator.consumer.ports import Log

_Sent = Future[tuple[int, int]]


class DeadLetters:
    """Sends at once and asks later. Bounded by the lake buffer, which holds the same messages."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._sent: list[tuple[bytes, _Sent]] = []

    def add(self, letter: DeadLetter) -> None:
        value = letter.to_json()
        self._sent.append((value, self._send(value)))

    def settle(self, seconds: float) -> None:
        """Wait until all are stored; send those again that failed. ServiceError: call it again."""
        if not self._sent:
            return
        self._sent = [
            (value, self._send(value) if _failed(future) else future)
            for value, future in self._sent
        ]
        self._log.flush(seconds)
        left = sum(not future.done() or _failed(future) for _, future in self._sent)
        if left:
            raise ServiceError(f"{left} dead letters are not stored in Kafka yet")

    def _send(self, value: bytes) -> _Sent:
        return self._log.send(Topic.dead_letters, None, value)


def _failed(future: _Sent) -> bool:
    return future.done() and future.exception() is not None
