"""What the consumer needs of the world, as protocols: the loop knows no client library.

Every method of a port that talks to a network or a disk raises `ServiceError` when it cannot do its
work, and has a time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pyarrow as pa

from contracts.events import Topic
from contracts.session import SessionState

if TYPE_CHECKING:
    from orchestrator.consumer.intents import Intent

Place = tuple[Topic, int]
"""A partition of a topic."""


class Record(NamedTuple):
    """A message as it came out of Kafka. `known`: Kafka's time of the message, milliseconds;
    `backfill`: it tells of the past (`contracts.events.BACKFILL_HEADER`), known since its own time.
    """

    topic: Topic
    partition: int
    offset: int
    value: bytes
    known: int = 0
    backfill: bool = False


class Source(Protocol):
    """Messages in, offsets out. Used by one thread."""

    generation: int
    """Grows with every change of the partitions this process owns; 0: none was ever assigned."""

    def poll(self, seconds: float, limit: int) -> list[Record]:
        """At most `limit` messages, as soon as there is one; none after `seconds`. One that fails
        has taken none."""
        ...

    def commit(self, offsets: Mapping[Place, int], mark: str) -> None:
        """Note the offsets to go on from after a restart, all or none, each with this mark."""
        ...

    def rewind(self) -> Mapping[Place, str]:
        """Go on from the committed offsets: what was polled after them comes again. Returns the
        mark of the last commit of each partition this process owns; "" where there was none."""
        ...

    def keep_alive(self, seconds: float) -> None:
        """Stay a member of the group for that long without taking messages."""
        ...

    def lag(self) -> int:
        """Messages in Kafka that were not polled yet, as far as is known."""
        ...

    def assigned(self) -> int:
        """Partitions this process owns."""
        ...

    def before_revoked(self, action: Callable[[], None]) -> None:
        """Call `action` while partitions that are about to be taken away are still owned."""
        ...

    def close(self) -> None: ...


class States(Protocol):
    """The session states of the online store."""

    def read(self, sessions: Sequence[str]) -> list[SessionState]:
        """The state of each session, of whatever age; an empty one where there is none."""
        ...

    def write(self, states: Mapping[str, SessionState]) -> None:
        """Replace the rows of these sessions in the views `session` and `context`."""
        ...

    def life(self) -> str:
        """Names the life that the store is in: another one after a restart or a failover, by which
        it may have forgotten what it had taken."""
        ...

    def confirm(self) -> str:
        """Wait until all that was written so far survives a restart; the life in which it does.
        May be called by another thread than the one that reads and writes."""
        ...


class LakeTables(Protocol):
    """The event lake. Paths are within it. Called by one thread at a time, not always the same."""

    def write_file(self, path: str, rows: pa.Table) -> None:
        """Store a file; the same path again replaces what it held."""
        ...

    def delete(self, files: Iterable[str]) -> None:
        """Delete files, those that are there."""
        ...

    def note(self, intent: Intent) -> None:
        """Remember a store that is about to be written; the same name again replaces it."""
        ...

    def forget(self, name: str) -> None:
        """Remove the note of that name, if it is there."""
        ...

    def intents(self) -> list[Intent]:
        """All notes."""
        ...


class Log(Protocol):
    """Where dead letters go (`orchestrator.kafka_log.KafkaLog`)."""

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[tuple[int, int]]: ...

    def flush(self, seconds: float) -> None: ...
