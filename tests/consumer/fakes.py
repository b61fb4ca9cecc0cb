"""The consumer's world in memory: it survives the consumer, as Kafka, Redis and a disk do."""

# fakes have the signatures of their protocols

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.session import SessionState
from contracts.tables import Lake
from orchestrator.consumer.ports import Place, Record


class Crash(BaseException):
    """The process dies here."""


@dataclass
class World:
    """Kafka's messages and offsets, the online store, the lake. `calls` is every call of a port
    that changes or reads it; `fault(number, name)` is called before and after each of them."""

    messages: dict[Place, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[Place, int] = field(default_factory=dict)
    states: dict[str, SessionState] = field(default_factory=dict)
    files: dict[tuple[Lake, str], pa.Table] = field(default_factory=dict)
    letters: list[bytes] = field(default_factory=list)
    fault: Callable[[int, str], None] = lambda _number, _name: None
    calls: int = 0

    def put(self, value: bytes, topic: Topic = Topic.events, partition: int = 0) -> None:
        self.messages[topic, partition].append(value)

    def around(self, name: str, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        self.fault(2 * self.calls, name)
        result = effect()
        self.fault(2 * self.calls + 1, name)
        return result

    def rows(self, table: Lake) -> list[dict[str, Any]]:
        """Rows of the lake, each (topic's partition, offset) once, as its readers see them."""
        rows = [
            row for (kind, _), t in self.files.items() if kind is table for row in t.to_pylist()
        ]
        return list(
            {(row["partition"], row["offset"], row.get("place")): row for row in rows}.values()
        )


class FakeSource:
    def __init__(self, world: World) -> None:
        self.world, self.generation = world, 1
        self.position = {place: world.committed.get(place, 0) for place in world.messages}
        self.revoking: Callable[[], None] = lambda: None

    def poll(self, seconds: float, limit: int) -> list[Record]:
        found: list[Record] = self.world.around("poll", lambda: self._poll(limit))
        return found

    def _poll(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for place, values in self.world.messages.items():
            start = self.position.get(place, 0)
            chosen = values[start : start + limit - len(records)]
            records += [Record(*place, start + n, value) for n, value in enumerate(chosen)]
            self.position[place] = start + len(chosen)
        return records

    def commit(self, offsets: Mapping[Place, int]) -> None:
        self.world.around("commit", lambda: self.world.committed.update(offsets))

    def rewind(self) -> None:
        self.position = {place: self.world.committed.get(place, 0) for place in self.world.messages}

    def rebalance(self) -> None:
        """Partitions are taken away and given back."""
        self.revoking()
        self.generation += 1

    def keep_alive(self, seconds: float) -> None:
        self.world.around("keep_alive", lambda: None)

    def lag(self) -> int:
        return sum(len(v) - self.position.get(p, 0) for p, v in self.world.messages.items())

    def assigned(self) -> int:
        return len(self.world.messages)

    def before_revoked(self, action: Callable[[], None]) -> None:
        self.revoking = action

    def close(self) -> None:
        pass


class FakeStates:
    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, sessions: Sequence[str]) -> list[SessionState]:
        found: list[SessionState] = self.world.around(
            "read", lambda: [self.world.states.get(name, SessionState()) for name in sessions]
        )
        return found

    def write(self, states: Mapping[str, SessionState]) -> None:
        self.world.around("write", lambda: self.world.states.update(states))

    def ping(self) -> None:
        self.world.around("ping", lambda: None)


class FakeLake:
    def __init__(self, world: World) -> None:
        self.world = world

    def write(self, table: Lake, rows: pa.Table, name: str) -> None:
        self.world.around("lake", lambda: self.world.files.update({(table, name): rows}))


class FakeLog:
    """A log that loses the first `failures` messages."""

    def __init__(self, world: World, failures: int = 0) -> None:
        self.world, self.failures = world, failures

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[tuple[int, int]]:
        future: Future[tuple[int, int]] = Future()
        if self.failures:
            self.failures -= 1
            future.set_exception(ServiceError("lost"))
        else:
            self.world.around("letter", lambda: self.world.letters.append(value))
            future.set_result((0, len(self.world.letters)))
        return future

    def flush(self, seconds: float) -> None:
        self.world.around("flush", lambda: None)
