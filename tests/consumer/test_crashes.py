"""Whatever dies, and whenever: the lake holds each row once, and states are the fold of their messages."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from random import Random
from threading import Event

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.dead_letters import DeadLetter
from contracts.errors import ServiceError
from contracts.events import Topic, parse_event
from contracts.session import SessionEvent, SessionState, fold
from contracts.tables import Lake
from orchestrator.consumer import intents
from orchestrator.consumer.buffer import Limits
from orchestrator.consumer.intents import Intent
from orchestrator.consumer.loop import Consumer
from tests.consumer.fakes import Crash, FakeLake, FakeLog, FakeSource, FakeStates, World

NOW = 1_700_000_000_000
DAY_MS = 24 * 3600 * 1000
PARTITIONS = 2
SMALL = Limits(rows=4, seconds=1000.0, idle_rows=1)


def consumer(
    world: World, background: ThreadPoolExecutor | None = None, limits: Limits = SMALL
) -> Consumer:
    return Consumer(
        FakeSource(world), FakeStates(world), FakeLake(world), FakeLog(world), 3, limits,
        background=background,
    )  # fmt: skip


def filled(draw: Random, count: int) -> World:
    """Events of a few sessions: late ones, repeats of other days, the same id with other content."""
    world = World()
    sent: list[tuple[str, bytes]] = []
    for number in range(count):
        session = draw.choice("abc")
        fields = {
            "session_id": session, "type": "click", "item_id": str(number), "event_id": str(draw.randrange(count)),
            "time": NOW + number * 1000 - draw.choice((0, 0, 5000, DAY_MS)),
        }  # fmt: skip
        repeat = sent and draw.random() < 0.2
        session, value = draw.choice(sent) if repeat else (session, json.dumps(fields).encode())
        sent.append((session, value))
        world.put(value, partition=ord(session) % PARTITIONS)
    return world


def expected(world: World) -> dict[str, SessionState]:
    """The fold of each session's messages, with their offsets."""
    states: dict[str, SessionState] = {}
    for (_, _), values in world.messages.items():
        for offset, value in enumerate(values):
            event = parse_event(value, NOW * 2)
            state = states.get(event.session_id, SessionState())
            states[event.session_id] = fold(state, [SessionEvent.of(event, offset)])
    return states


def check(world: World) -> None:
    assert world.states == expected(world)
    rows = Counter((row["partition"], row["offset"]) for row in world.rows(Lake.events))
    sent = {(part, n) for (_, part), values in world.messages.items() for n in range(len(values))}
    assert rows == Counter(sent)
    assert all(note.void_since is not None for note in world.notes.values())


def drain(running: Consumer, world: World) -> None:
    for _ in range(2000):
        running.step()
        if all(world.committed.get(p, 0) == len(v) for p, v in world.messages.items()):
            return
        if running._storing is not None:
            running._storing.attempt.done(0.05)
    raise AssertionError(f"not committed: {world.committed}")


def survive(world: World, background: ThreadPoolExecutor | None = None) -> int:
    """Start consumers until one comes through; how many died."""
    for deaths in range(1000):
        try:
            drain(consumer(world, background), world)
        except Crash:
            continue
        world.fault = lambda _number, _name: None
        if background is not None:
            background.submit(int).result()  # what the dead had begun has come to an end
        drain(consumer(world), world)  # takes over what the last one left
        return deaths
    raise AssertionError("none came through")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_any_crashes_restarts_of_the_store_and_failures_together(seed: int) -> None:
    draw = Random(seed)  # noqa: S311
    world = filled(draw, 40)
    left = [12]  # faults; in the end things go well

    def fault(number: int, name: str) -> None:
        if name == "poll" and number % 2:
            return  # one that fails has taken nothing
        if left[0] and draw.random() < 0.05:
            left[0] -= 1
            kind = draw.choice(("crash", "restart", "fail"))
            if kind == "crash":
                raise Crash(name)
            if kind == "restart":
                world.restart_store()
            elif name in (
                "poll",
                "read",
                "write",
                "note",
                "lake",
                "confirm",
                "commit",
                "forget",
                "delete",
                "life",
            ):
                raise ServiceError(f"{name} is down")  # fmt: skip

    world.fault = fault
    survive(world)
    check(world)


def test_a_store_that_forgets_at_any_call_loses_nothing() -> None:
    """It restarts before or after every single call, without what it had not confirmed."""
    for point in range(2, 1000):
        world = filled(Random(3), 12)  # noqa: S311

        def forget(number: int, _name: str, point: int = point, world: World = world) -> None:
            if number == point:
                world.restart_store()

        world.fault = forget
        running = consumer(world)
        drain(running, world)
        running.step()  # a restart within the last calls is seen by the next look
        drain(running, world)
        if world.life == 1:
            assert point > 60
            return
        running._next_ping = 0.0
        for _ in range(3):
            running.step()
        check(world)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_with_stores_in_the_background(seed: int) -> None:
    draw = Random(seed)  # noqa: S311
    world = filled(draw, 60)
    left = [6]

    def fault(_number: int, name: str) -> None:
        if left[0] and draw.random() < 0.05:
            left[0] -= 1
            if name in ("note", "lake", "confirm"):  # these run in the other thread
                raise ServiceError(f"{name} is down")
            if name in ("commit", "write", "forget"):
                raise Crash(name)

    world.fault = fault
    with ThreadPoolExecutor(1) as background:
        survive(world, background)
    check(world)


@pytest.mark.parametrize("rows", [3, 4])
def test_a_batch_is_read_while_states_are_on_their_way_but_nothing_is_stored(rows: int) -> None:
    """A store is due after one batch, or after two."""
    world = filled(Random(3), 8)  # noqa: S311
    writing, read, letting = Event(), Event(), Event()
    names: list[str] = []

    def hold(number: int, name: str) -> None:
        names.append(name)
        if name == "write" and number % 2 == 0 and not writing.is_set():
            writing.set()
            letting.wait(10)
        if name == "poll" and number % 2 and writing.is_set():
            read.set()

    world.fault = hold
    with ThreadPoolExecutor(2) as background, ThreadPoolExecutor(1) as loop:
        running = consumer(world, background, replace(SMALL, rows=rows))
        stepping = loop.submit(drain, running, world)
        assert writing.wait(10)
        assert read.wait(10 if rows == 4 else 0.2) == (rows == 4)
        assert not wait([stepping], 0.2).done
        assert not {"note", "lake", "confirm", "commit"} & set(names)
        letting.set()
        stepping.result(10)
    check(world)


def test_one_that_lost_its_partitions_unknowingly_leaves_no_rows_behind() -> None:
    """It sleeps before or after any call of its store; meanwhile another takes over and commits."""
    for point in range(2, 100):
        world = filled(Random(5), 6)  # noqa: S311
        source = FakeSource(world)
        zombie = Consumer(source, FakeStates(world), FakeLake(world), FakeLog(world), 3, SMALL)

        def sleep(
            number: int, _name: str, p: int = point, w: World = world, s: FakeSource = source
        ) -> None:
            if number != p:
                return
            w.fault = lambda _number, _name: None
            drain(consumer(w), w)
            s.fenced = True  # its group has another owner of its partitions
            w.fault = lambda _number, name: (
                setattr(s, "generation", 2) if name == "keep_alive" else None
            )

        world.fault = sleep
        zombie.step()
        while not source.fenced and world.calls < 200:
            zombie.step()
        if not source.fenced:
            assert point > 30
            return
        for _ in range(8):
            zombie.step()
        check(world)


def test_files_of_a_killed_zombie_are_deleted_by_the_next_who_takes_over() -> None:
    """Its note came after another had committed the same messages."""
    world = filled(Random(5), 6)  # noqa: S311
    drain(consumer(world), world)
    rows = next(iter(world.files.values()))
    span = {(Topic.events, 0): (0, 0)}
    FakeLake(world).note(Intent("zombie", span, ("events/late", "events/later")))
    FakeLake(world).write_file("events/late", rows)
    consumer(world).step()
    check(world)


def test_what_a_note_says_and_the_offsets_decide() -> None:
    spans = {(Topic.events, 0): (5, 9), (Topic.prices, 1): (0, 3)}
    intent = Intent("n", spans, ("events/x.parquet",))
    assert Intent.from_json("n", intent.to_json()) == intent
    assert intent.committed({}) is None
    assert intent.committed({(Topic.events, 1): "n"}) is None
    assert intent.committed({(Topic.events, 0): "n"}) is True
    assert intent.committed({(Topic.events, 0): "n", (Topic.prices, 1): "n"}) is True
    assert intent.committed({(Topic.events, 0): "later"}) is False


def test_a_void_note_guards_against_its_writer_until_that_is_surely_gone() -> None:
    world = World()
    lake = FakeLake(world)
    lake.note(Intent("n", {(Topic.events, 0): (0, 9)}, ("events/x",)))
    owned = {(Topic.events, 0): "another"}
    for moment in (1, 2):
        world.files["events/x"] = pa.table({})  # its writer still lives
        intents.settle(lake, owned, set(), partial(int, moment))
        assert world.files == {}
        assert world.notes["n"].void_since == 1
    intents.settle(lake, owned, set(), lambda: 2 + intents.VOID_KEPT_MS)
    assert world.notes == {}


def test_a_note_of_others_partitions_is_left_alone() -> None:
    world = World()
    lake = FakeLake(world)
    theirs = Intent("n", {(Topic.events, 0): (0, 9)}, ("events/x",))
    lake.note(theirs)
    intents.settle(lake, {(Topic.events, 1): ""}, set(), lambda: 1)
    assert world.notes == {"n": theirs}


def test_what_the_api_refused_stands_in_the_lake_once_and_nothing_loops() -> None:
    world = World()
    letter = DeadLetter("api", "bad_id", "item_id", "det\x01ail", "raw", NOW)
    world.put(letter.to_json(), Topic.dead_letters)
    world.put(b"no letter", Topic.dead_letters)
    world.put(b"no event")
    seen = 0
    for _ in range(3):  # the consumer's own letters come back
        drain(consumer(world), world)
        for value in world.letters[seen:]:
            world.put(value, Topic.dead_letters)
        seen = len(world.letters)
    assert [json.loads(value)["origin"] for value in world.letters] == ["topic:events", "topic:dead-letters"] or [
        json.loads(value)["origin"] for value in world.letters
    ] == ["topic:dead-letters", "topic:events"]  # fmt: skip
    rows = sorted((row["origin"], row["detail"][:8]) for row in world.rows(Lake.dead_letters))
    assert [origin for origin, _ in rows] == ["api", "topic:dead-letters", "topic:events"]
    assert rows[0][1] == "det\x01ail"
