"""The way of an event, step by step.

1. poll a batch: at most `batch` messages, as soon as there is one;
2. parse it: what does not parse becomes a dead letter with its reason;
3. read the states of its sessions (from memory where this process wrote them last);
4. fold the events into the states;
5. write the states online: from here on the next request sees the events;
6. send dead letters to their topic; keep all messages for the lake;
7. when the lake's buffer is due: note which files will be written, and write them;
8. wait until the dead letters are stored and until the online store would remember the states;
9. commit the offsets of exactly those messages: this decides that the files stay;
10. remove the note.

Steps 7 and 8 run in the background (`storing.Storing`), while the loop fills the next buffer. So
does step 5 (`storing.Writing`) when more messages are waiting: the next batch is parsed and folded
meanwhile. Its states are written after those before, and nothing is stored before all are.

A crash between any two steps repeats work from the last commit and loses nothing: a repeated event
changes no state (the fold knows its id), files that were not committed are deleted before their
messages are read again (`intents`), and a dead letter may be sent twice. A step that fails is tried
again with growing pauses, in which this process stays a member of its group; nothing is committed
meanwhile.

An online store that restarts may forget the last states it took. Nothing is committed before it
says that it would remember (8), and when its life is another one than before, this process forgets
what it knows and goes back to the committed offsets.

Memory: one batch (`batch` messages, of at most the source's fetch limit), two lake buffers
(`buffer.Limits`), the state memory (`sessions.MAX_CACHED_EVENTS`) and the dead letters in flight
(`kafka_log.MAX_BYTES`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from contracts.dead_letters import DeadLetter
from contracts.errors import ServiceError
from contracts.events import Event
from contracts.session import SessionState
from orchestrator.consumer import intents
from orchestrator.consumer.buffer import LakeBuffer, Limits
from orchestrator.consumer.dead_letters import DeadLetters
from orchestrator.consumer.health import Health, Metrics
from orchestrator.consumer.parsing import Parsed, parse
from orchestrator.consumer.ports import LakeTables, Log, Record, Source, States
from orchestrator.consumer.sessions import Sessions
from orchestrator.consumer.storing import AtOnce, Attempt, Storing, Writing

POLL_SECONDS = 0.2
"""How long a poll waits when there is nothing; a message ends the wait at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries of a step that fails: doubled each time."""
PING_SECONDS = 2.0
STORE_SECONDS = 0.5
"""So long the loop waits for a store at a time, then it tells its group that it is alive."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _Interrupted(Exception):  # no error: the batch comes again
    """The batch at hand is given up: partitions have changed, or the process ends."""


class Consumer:
    """Runs the steps above over its ports. One thread; `stop` may be set from any. `background`: two
    threads, or none: then every step ends before the next begins."""

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
        background: Executor | None = None,
    ) -> None:
        self._source, self._states, self._lake, self._batch = source, states, lake, batch
        self._limits = limits or Limits()
        self._log = log
        self._sessions = Sessions(states)
        self.health = health or Health()
        self.metrics = metrics or Metrics()
        self.stop = threading.Event()
        self._background = background or AtOnce()
        self._generation = 0
        self._life = ""  # of the online store
        self._next_ping = 0.0
        self._given_up: set[str] = set()  # names of stores that were never committed
        self._storing: Storing | None = None
        self._writing: Writing | None = None
        self._empty_hands()
        source.before_revoked(self._store_before_revoked)

    def run(self) -> None:
        """Until `stop` is set; then what is in memory is stored and committed."""
        while not self.stop.is_set():
            self.step()
        try:
            if self._generation == self._source.generation:
                self._store_all()
        except (ServiceError, _Interrupted) as error:
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
                self._await_write()
                self._ping()
            if self._storing is not None and self._storing.attempt.done():
                self._patiently(self._finish)
            if self._buffer.due(time.monotonic(), idle=not records):
                self._begin_store()
        except _Interrupted:
            return
        self._note()

    def _poll(self) -> Sequence[Record]:
        found = self._patiently(lambda: self._source.poll(POLL_SECONDS, self._batch))  # 1
        self.health.last_poll = time.monotonic()
        if self._source.generation != self._generation:
            self._begin_anew()
        return found

    def _begin_anew(self) -> None:
        """Partitions have changed hands, or the online store has restarted: what is remembered here
        may not be true any more."""
        self._generation = self._source.generation
        if self._writing is not None:
            self._see_the_end(self._writing.attempt)
            self._writing = None
        if self._storing is not None:
            self._see_the_end(self._storing.attempt)
            self._given_up.add(self._storing.buffer.name)
            self._storing = None
        self._empty_hands()
        self._sessions.forget()
        self._patiently(self._go_back)
        _log.info("owning %d partitions", self._source.assigned())
        raise _Interrupted

    def _see_the_end(self, attempt: Attempt[Any]) -> None:
        while not attempt.done(STORE_SECONDS):
            _log.info("waiting for the end of work that will be repeated")

    def _empty_hands(self) -> None:
        self._buffer = LakeBuffer(self._limits)
        self._letters = DeadLetters(self._log)

    def _go_back(self) -> None:
        self._life = self._states.life()  # before anything is read from it
        marks = self._source.rewind()
        intents.settle(self._lake, marks, self._given_up, lambda: int(time.time() * 1000))
        self._given_up.clear()
        self._seen_redis()

    def _take(self, records: Sequence[Record]) -> None:
        began = time.monotonic()
        received = int(time.time() * 1000)
        parsed = [parse(record, received) for record in records]  # 2
        events = [(p.message, p.record.offset) for p in parsed if isinstance(p.message, Event)]
        if events:
            changed = self._patiently(lambda: self._sessions.fold(events))  # 3, 4
            self._write(changed, began, more=len(records) >= self._batch)
        letters = [p for p in parsed if isinstance(p.message, DeadLetter)]
        for letter in filter(None, (p.refused for p in letters)):
            self._letters.add(letter)  # 6
            self.metrics.refused.labels(letter.reason).inc()
        self._buffer.add(parsed, time.monotonic())
        self._count(parsed)

    def _write(self, changed: Mapping[str, SessionState], began: float, more: bool) -> None:
        """In the background only if there is more to do meanwhile: it takes the states a little
        longer."""
        self._await_write()
        if not changed:
            return
        executor = self._background if more else AtOnce()
        self._writing = Writing(changed, began, self._states, executor)  # 5
        if not more:
            self._await_write()

    def _await_write(self) -> None:
        """Until the states on their way are online."""
        if self._writing is not None:
            self._await(self._writing.attempt)
            self._patiently(self._written)

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.attempt.result()
            self._check_life()
            self._seen_redis()
            self.metrics.batch_seconds.observe(time.monotonic() - self._writing.began)
            self.metrics.online_writes.inc(self._writing.rows)
            self._writing = None

    def _await(self, attempt: Attempt[Any]) -> None:
        while not attempt.done(STORE_SECONDS):
            self._keep_alive(0.0)

    def _check_life(self) -> None:
        self._check(self._states.life())

    def _check(self, life: str) -> None:
        if life != self._life != "":
            _log.warning("the online store has restarted: going back to the committed offsets")
            self._generation = 0  # the next poll begins anew
            raise _Interrupted

    def _begin_store(self) -> None:
        self._await_write()
        if self._storing is not None:
            self._await(self._storing.attempt)
            self._patiently(self._finish)
        self._storing = Storing(
            self._buffer, self._letters, self._lake, self._states, self._background
        )  # 7, 8
        self._empty_hands()
        if self._storing.attempt.done():
            self._patiently(self._finish)

    def _finish(self) -> None:
        if self._storing is None:
            return
        self._check(self._storing.attempt.result())
        buffer = self._storing.buffer
        self._source.commit(buffer.offsets(), buffer.name)  # 9
        self._lake.forget(buffer.name)  # 10
        for table, rows in self._storing.written.items():
            self.metrics.lake_rows.labels(table.value).inc(rows)
        self._storing = None

    def _store_all(self) -> None:
        """Everything in memory, one try."""
        self._written()
        self._finish()
        if self._buffer.rows:
            self._storing = Storing(self._buffer, self._letters, self._lake, self._states, AtOnce())
            self._empty_hands()
            self._finish()

    def _store_before_revoked(self) -> None:
        """Spare whoever takes over the work that is done already; if it fails, it is repeated."""
        try:
            if self._generation == self._source.generation:
                self._store_all()
        except (ServiceError, _Interrupted) as error:
            _log.warning("the next owner of these partitions repeats some work: %s", error)

    def _patiently(self, action: Callable[[], _T]) -> _T:
        """Do it, however often that takes; _Interrupted when it no longer makes sense."""
        pause = FIRST_PAUSE
        while True:
            try:
                result = action()
            except ServiceError as error:
                self._failed(error)
            else:
                self.health.trouble = ""
                return result
            if self.stop.wait(0):
                raise _Interrupted
            self._keep_alive(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _keep_alive(self, seconds: float) -> None:
        self._source.keep_alive(seconds)
        self.health.last_poll = time.monotonic()
        if self._source.generation != self._generation:
            raise _Interrupted

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
        self._check_life()
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
        storing = 0 if self._storing is None else self._storing.buffer.rows
        health.waiting_for_lake = self._buffer.rows + storing
        health.lag = self._source.lag()
        self.metrics.lag.set(health.lag)
