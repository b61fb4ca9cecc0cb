"""The way of an event, step by step.

1. poll a batch: at most `batch` messages, as soon as there is one;
2. parse it: what does not parse becomes a dead letter with its reason;
3. read the states of its sessions (from memory where this process wrote them last);
4. fold the events into the states;
5. write the states online: from here on the next request sees the events;
6. send dead letters to their topic; keep all messages for the lake;
7. when the lake's buffer is due: write its files, each whole or not at all;
8. wait until the dead letters are stored;
9. commit the offsets of exactly those messages, last.

A crash between any two steps repeats work from the last commit and loses nothing: a repeated event
changes no state (the fold knows its id), the same lake rows carry the same partition and offset,
and a dead letter may be sent twice. A step that fails is tried again with growing pauses, in which
this process stays a member of its group; nothing is committed meanwhile.

Memory: one batch (`batch` messages, of at most the source's fetch limit), the lake buffer
(`buffer.Limits`), the state memory (`sessions.MAX_CACHED_EVENTS`) and the dead letters in flight
(`kafka_log.MAX_BYTES`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from contracts.errors import ServiceError
from contracts.events import DeadLetter, Event
from orchestrator.consumer.buffer import LakeBuffer, Limits
from orchestrator.consumer.dead_letters import DeadLetters
from orchestrator.consumer.health import Health, Metrics
from orchestrator.consumer.parsing import Parsed, parse
from orchestrator.consumer.ports import LakeTables, Log, Record, Source, States
from orchestrator.consumer.sessions import Sessions

POLL_SECONDS = 0.2
"""How long a poll waits when there is nothing; a message ends the wait at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries of a step that fails: doubled each time."""
PING_SECONDS = 2.0
STORE_SECONDS = 10.0
"""Time limit of one try for dead letters to be stored."""

_log = logging.getLogger(__name__)


class _Interrupted(Exception):  # no error: the batch comes again
    """The batch at hand is given up: partitions have changed, or the process ends."""


class Consumer:
    """Runs the steps above over its ports. One thread; `stop` may be set from any."""

    def __init__(
        self,
        source: Source,
        states: States,
        lake: LakeTables,
        log: Log,
        batch: int,
        limits: Limits | None = None,
        health: Health | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._source, self._states, self._lake, self._batch = source, states, lake, batch
        self._letters = DeadLetters(log)
        self._sessions = Sessions(states)
        self._buffer = LakeBuffer(limits or Limits())
        self.health = health or Health()
        self.metrics = metrics or Metrics()
        self.stop = threading.Event()
        self._generation = 0
        self._next_ping = 0.0
        source.before_revoked(self._store_before_revoked)

    def run(self) -> None:
        """Until `stop` is set; then what is in memory is stored and committed."""
        while not self.stop.is_set():
            self.step()
        try:
            if self._generation == self._source.generation:
                self._store()
        except ServiceError as error:
            _log.warning("left uncommitted, to be repeated after the next start: %s", error)
        finally:
            self._source.close()

    def step(self) -> None:
        """Take one batch through all steps, or find that there is none."""
        try:
            records = self._poll()
            if records:
                self._take(records)
            else:
                self._ping()
            if self._buffer.due(time.monotonic(), idle=not records):
                self._patiently(self._store)
        except _Interrupted:
            return
        self._note()

    def _poll(self) -> Sequence[Record]:
        found: list[Record] = []
        self._patiently(  # 1
            lambda: found.extend(self._source.poll(POLL_SECONDS, self._batch))
        )
        self.health.last_poll = time.monotonic()
        if self._source.generation != self._generation:
            self._begin_anew()
        return found

    def _begin_anew(self) -> None:
        """Partitions have changed hands: others may have written what is remembered here."""
        self._generation = self._source.generation
        self._buffer.clear()
        self._letters.clear()
        self._sessions.forget()
        self._patiently(self._source.rewind)
        _log.info("owning %d partitions", self._source.assigned())
        raise _Interrupted

    def _take(self, records: Sequence[Record]) -> None:
        began = time.monotonic()
        received = int(time.time() * 1000)
        parsed = [parse(record, received) for record in records]  # 2
        events = [p.message for p in parsed if isinstance(p.message, Event)]
        if events:
            self._patiently(lambda: self._apply(events))  # 3 to 5
        self.metrics.batch_seconds.observe(time.monotonic() - began)
        for letter in (p.message for p in parsed if isinstance(p.message, DeadLetter)):
            self._letters.add(letter)  # 6
            self.metrics.refused.labels(letter.reason).inc()
        self._buffer.add(parsed, time.monotonic())
        self._count(parsed)

    def _apply(self, events: Sequence[Event]) -> None:
        self.metrics.online_writes.inc(self._sessions.apply(events))
        self._seen_redis()

    def _store(self) -> None:
        if not self._buffer.rows:
            return
        written = self._buffer.store(self._lake)  # 7
        self._letters.settle(STORE_SECONDS)  # 8
        self._source.commit(self._buffer.offsets())  # 9
        self._buffer.clear()
        self._letters.clear()
        for table, rows in written.items():
            self.metrics.lake_rows.labels(table.value).inc(rows)

    def _store_before_revoked(self) -> None:
        """Spare whoever takes over the work that is done already; if it fails, it is repeated."""
        try:
            if self._generation == self._source.generation and self._buffer.rows:
                self._store()
        except ServiceError as error:
            _log.warning("the next owner of these partitions repeats some work: %s", error)

    def _patiently(self, action: Callable[[], None]) -> None:
        """Do it, however often that takes; _Interrupted when it no longer makes sense."""
        pause = FIRST_PAUSE
        while True:
            try:
                action()
            except ServiceError as error:
                self._failed(error)
            else:
                self.health.trouble = ""
                return
            if self.stop.wait(0):
                raise _Interrupted
            self._source.keep_alive(pause)
            self.health.last_poll = time.monotonic()
            if self._source.generation != self._generation:
                raise _Interrupted
            pause = min(2 * pause, LONGEST_PAUSE)

    def _failed(self, error: ServiceError) -> None:
        self.metrics.retries.inc()
        if str(error) != self.health.trouble:
            _log.warning("trying again, nothing is committed meanwhile: %s", error)
        self.health.trouble = str(error)

    def _ping(self) -> None:
        if time.monotonic() >= self._next_ping:
            self._patiently(self._ping_redis)

    def _ping_redis(self) -> None:
        self.health.redis = False
        self._states.ping()
        self._seen_redis()

    def _seen_redis(self) -> None:
        self.health.redis = True
        self._next_ping = time.monotonic() + PING_SECONDS

    def _count(self, parsed: Sequence[Parsed]) -> None:
        for topic, number in Counter(p.record.topic for p in parsed).items():
            self.metrics.consumed.labels(topic.value).inc(number)

    def _note(self) -> None:
        health = self.health
        health.joined, health.partitions = self._generation > 0, self._source.assigned()
        health.waiting_for_lake = self._buffer.rows
        health.lag = self._source.lag()
        self.metrics.lag.set(health.lag)
