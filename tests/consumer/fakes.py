"""The consumer's world in memory: it survives the consumer, as Kafka, Redis and a disk do."""

# fakes have the signatures of their protocols

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.session import SessionState
from contracts.tables import Lake
from orchestrator.consumer.intents import Intent
from orchestrator.consumer.ports import Place, Record


class Crash(BaseException):
    """The process dies here."""


@dataclass
class World:
    """Kafka's messages and offsets, the online store, the lake. `calls` is every call of a port
    that changes or reads it; `fault(number, name)` is called before and after each of them.
    `remembered` is what the online store would hold after a restart."""

    messages: dict[Place, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[Place, int] = field(default_factory=dict)
    marks: dict[Place, str] = field(default_factory=dict)  # of the last commits
    states: dict[str, SessionState] = field(default_factory=dict)
    remembered: dict[str, SessionState] = field(default_factory=dict)
    life: int = 1
    files: dict[str, pa.Table] = field(default_factory=dict)
    notes: dict[str, Intent] = field(default_factory=dict)
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

    def restart_store(self) -> None:
        """The online store comes back without what it had not written to its disk."""
        self.states = dict(self.remembered)
        self.life += 1

    def tables(self, table: Lake) -> list[pa.Table]:
        return [rows for path, rows in self.files.items() if path.startswith(f"{table.value}/")]

    def rows(self, table: Lake) -> list[dict[str, Any]]:
        """Rows of the lake as they lie in its files."""
        return [row for rows in self.tables(table) for row in rows.to_pylist()]


class FakeSource:
    def __init__(self, world: World) -> None:
        self.world, self.generation, self.fenced = world, 1, False
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

    def commit(self, offsets: Mapping[Place, int], mark: str) -> None:
        self.world.around("commit", lambda: self._commit(offsets, mark))

    def _commit(self, offsets: Mapping[Place, int], mark: str) -> None:
        if self.fenced:
            raise ServiceError("this member was fenced")
        self.world.committed.update(offsets)
        self.world.marks.update(dict.fromkeys(offsets, mark))

    def rewind(self) -> Mapping[Place, str]:
        self.position = {place: self.world.committed.get(place, 0) for place in self.owned()}
        return {place: self.world.marks.get(place, "") for place in self.position}

    def owned(self) -> list[Place]:
        return list(self.world.messages)

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
        self.world.around("write", lambda: self._write(states))

    def _write(self, states: Mapping[str, SessionState]) -> None:
        """Of one session the greater version stays, whoever writes it."""
        for name, state in states.items():
            if state.version >= self.world.states.get(name, SessionState()).version:
                self.world.states[name] = state

    def life(self) -> str:
        return str(self.world.around("life", lambda: self.world.life))

    def confirm(self) -> str:
        return str(self.world.around("confirm", self._confirm))

    def _confirm(self) -> int:
        self.world.remembered = dict(self.world.states)
        return self.world.life


class FakeLake:
    def __init__(self, world: World) -> None:
        self.world = world

    def write_file(self, path: str, rows: pa.Table) -> None:
        self.world.around("lake", lambda: self.world.files.update({path: rows}))

    def delete(self, files: Iterable[str]) -> None:
        for path in files:
            self.world.around("delete", partial(self.world.files.pop, path, None))

    def note(self, intent: Intent) -> None:
        self.world.around("note", lambda: self.world.notes.update({intent.name: intent}))

    def forget(self, name: str) -> None:
        self.world.around("forget", lambda: self.world.notes.pop(name, None))

    def intents(self) -> list[Intent]:
        found: list[Intent] = self.world.around("notes", lambda: list(self.world.notes.values()))
        return found


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
