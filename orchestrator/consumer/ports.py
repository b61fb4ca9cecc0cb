"""What the consumer needs of the world, as protocols: the loop knows no client library.

Every method of a port that talks to a network or a disk raises `ServiceError` when it cannot do its
work, and has a time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import pyarrow as pa

from contracts.events import Topic
from contracts.session import SessionState
from contracts.tables import Lake

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
        """At most `limit` messages, as soon as there is one; none after `seconds`."""
        ...

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Note the offsets to go on from after a restart."""
        ...

    def rewind(self) -> None:
        """Go on from the committed offsets: what was polled after them comes again."""
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

    def ping(self) -> None: ...


class LakeTables(Protocol):
    """The event lake."""

    def write(self, table: Lake, rows: pa.Table, name: str) -> None:
        """Store rows under a file name; the same name again replaces what it held."""
        ...


class Log(Protocol):
    """Where dead letters go (`orchestrator.kafka_log.KafkaLog`)."""

    def send(self, topic: Topic, key: str | None, value: bytes) -> Future[tuple[int, int]]: ...

    def flush(self, seconds: float) -> None: ...
