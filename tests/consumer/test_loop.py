"""The way of an event: order, dead letters, and crashes and failures between any two steps."""

from __future__ import annotations

import json
from itertools import count

import pytest

from contracts.errors import ServiceError
from contracts.events import (
    Impression,
    PriceChange,
    Reason,
    ServedRows,
    Topic,
    parse_event,
)
from contracts.session import SessionEvent, SessionState, fold, items_of
from contracts.tables import LAKE_COLUMNS, Lake
from orchestrator.consumer.buffer import Limits
from orchestrator.consumer.loop import Consumer
from tests.consumer.fakes import Crash, FakeLake, FakeLog, FakeSource, FakeStates, World

NOW = 1_700_000_000_000
AT_ONCE = Limits(rows=1, seconds=0.0)


def click(session: str, item: str, second: int) -> bytes:
    fields = {"session_id": session, "item_id": item, "type": "click", "time": NOW + second * 1000}
    return json.dumps(fields).encode()


def consumer(
    world: World, limits: Limits = AT_ONCE, batch: int = 3, log: FakeLog | None = None
) -> Consumer:
    return Consumer(
        FakeSource(world), FakeStates(world), FakeLake(world), log or FakeLog(world), batch, limits
    )


def drain(running: Consumer, world: World, steps: int = 30) -> None:
    """Step until everything is committed."""
    for _ in range(steps):
        running.step()
        if all(world.committed.get(p, 0) == len(v) for p, v in world.messages.items()):
            return
    raise AssertionError(f"not committed after {steps} steps: {world.committed}")


def shop_world() -> World:
    """Two sessions over two partitions, a repeat, a late event and two messages of no use."""
    world = World()
    for value in (click("a", "1", 0), click("a", "3", 20), b"{", click("a", "2", 10)):
        world.put(value)
    world.put(click("a", "1", 0))
    world.put(click("b", "9", 5), partition=1)
    world.put(b'{"session_id":"b","type":"click","time":1}', partition=1)
    world.put(b'{"item_id":"1","time":1,"brand":"x"}', Topic.products)
    return world


def check_shop(world: World) -> None:
    """What must hold of `shop_world` however often the consumer died."""
    assert items_of(world.states["a"].events) == ["1", "2", "3"]
    assert len(world.states["a"].events) == 3
    assert [event.offset for event in world.states["a"].events] == [0, 3, 1]
    assert items_of(world.states["b"].events) == ["9"]
    assert [row["item_id"] for row in world.rows(Lake.products)] == ["1"]
    assert sorted((row["partition"], row["offset"]) for row in world.rows(Lake.events)) == [
        (0, 0), (0, 1), (0, 3), (0, 4), (1, 0),
    ]  # fmt: skip
    refused = sorted((row["offset"], row["reason"]) for row in world.rows(Lake.dead_letters))
    assert refused == [(1, Reason.no_item), (2, Reason.not_json)]
    assert all(note.void_since is not None for note in world.notes.values())
    assert {json.loads(value)["reason"] for value in world.letters} == {"not_json", "no_item"}


def test_events_end_in_state_and_lake_and_what_is_wrong_in_dead_letters() -> None:
    world = shop_world()
    drain(consumer(world), world)
    check_shop(world)
    assert len(world.letters) == 2


def test_a_crash_at_any_call_loses_nothing_and_doubles_nothing() -> None:
    """The process dies before or after the effect of every single call, then starts again. Rows are
    counted as they lie in the files."""
    for point in count(2):
        world = shop_world()

        def die(number: int, name: str, point: int = point) -> None:
            if number == point:
                raise Crash(name)

        world.fault = die
        try:
            drain(consumer(world, batch=2), world)
        except Crash:
            world.fault = lambda _number, _name: None
            drain(consumer(world, batch=3), world)  # other batches than before
            check_shop(world)
        else:
            break
    assert point > 30  # every call was a point once


@pytest.mark.parametrize(
    "name", ["poll", "read", "write", "note", "lake", "flush", "confirm", "commit", "forget"]
)
def test_a_step_that_fails_is_repeated_and_commits_nothing_meanwhile(name: str) -> None:
    world = shop_world()
    failures = iter(range(3))
    running = consumer(world)
    troubles = []

    def fail(number: int, called: str) -> None:
        if called == "keep_alive" and number % 2 == 0:
            troubles.append((running.health.trouble, running.health.ready(), dict(world.committed)))
        if called == name and number % 2 == 0 and next(failures, None) is not None:
            raise ServiceError(f"{name} is down")

    world.fault = fail
    drain(running, world)
    running.step()
    check_shop(world)
    assert len(troubles) == 3
    before = troubles[0][2]
    assert all(found == (f"{name} is down", False, before) for found in troubles)
    assert running.health.trouble == ""


def test_an_idle_consumer_is_not_ready_while_redis_is_down() -> None:
    world = World()
    running = consumer(world)
    seen: list[tuple[bool, bool]] = []

    def fail(number: int, called: str) -> None:
        if called == "life" and running.health.joined and not seen:
            raise ServiceError("down")
        if called == "keep_alive":
            seen.append((running.health.redis, running.health.ready()))

    world.fault = fail
    for _ in range(3):
        running._next_ping = 0.0
        running.step()
    assert seen[0] == (False, False)
    assert running.health.ready()


def test_offsets_wait_for_the_lake_but_the_online_store_does_not() -> None:
    world = shop_world()
    running = consumer(world, Limits(rows=100, seconds=1000, idle_rows=100), batch=100)
    for _ in range(3):
        running.step()
    assert items_of(world.states["a"].events) == ["1", "2", "3"]
    assert world.committed == {}
    assert world.files == {}
    running.stop.set()
    running.run()
    check_shop(world)
    assert world.committed == {p: len(v) for p, v in world.messages.items()}


def test_partitions_that_are_taken_away_are_stored_first_and_read_anew() -> None:
    world = shop_world()
    source = FakeSource(world)
    lazy = Limits(rows=100, seconds=1000, idle_rows=100)
    running = Consumer(source, FakeStates(world), FakeLake(world), FakeLog(world), 4, lazy)
    running.step()
    running.step()
    source.rebalance()
    assert sum(world.committed.values()) == 4
    # meanwhile another process has folded an event into the state that this one remembers
    other = parse_event(click("a", "77", 30), NOW * 2)
    world.states["a"] = fold(world.states["a"], [other])
    for _ in range(4):
        running.step()
    assert [event.item for event in world.states["a"].events] == ["1", "2", "3", "77"]


def test_a_batch_at_hand_is_given_up_when_its_partitions_go() -> None:
    world = shop_world()
    source = FakeSource(world)
    running = Consumer(source, FakeStates(world), FakeLake(world), FakeLog(world), 3, AT_ONCE)
    down = [True]

    def fail(number: int, called: str) -> None:
        if called == "write" and down[0]:
            raise ServiceError("down")
        if called == "keep_alive" and down[0]:
            down[0] = False
            source.rebalance()

    world.fault = fail
    drain(running, world)
    check_shop(world)


def test_dead_letters_that_kafka_loses_are_sent_again() -> None:
    world = shop_world()
    drain(consumer(world, log=FakeLog(world, failures=1)), world)
    check_shop(world)
    assert len(world.letters) == 2


def test_heartbeats_alone_write_no_state() -> None:
    world = World()
    world.put(json.dumps({"session_id": "h", "type": "heartbeat", "time": NOW}).encode())
    drain(consumer(world), world)
    assert world.states == {}
    assert world.rows(Lake.events)[0]["type"] == "heartbeat"


def test_every_topic_has_its_table_with_the_columns_of_the_contract() -> None:
    world = World()
    world.put(PriceChange(item_id="1", time=NOW, price=2.5, available=True).to_json(), Topic.prices)
    impression = Impression(
        request_id="r", session_id="s", time=NOW, release="v1", items=["1", "2"], scores=[0.5, 0.25],
        sources=[["popular"], []], degraded=[],
    )  # fmt: skip
    served = ServedRows(
        request_id="r", session_id="s", time=NOW, asked_at=NOW, release="v1", index="i1", session_version=7,
        events=[], context={}, exclude=["9"], candidates=150, degraded=[], visited=["3"],
        visited_versions={"item_catalogue": [5]}, versions={"item_catalogue": [3, -1]},
        features=["price", "rank_x"], items=["1", "2"], rows=[[1.5, None], [2.5, 3.0]], scores=[0.5, 0.25],
    )  # fmt: skip
    other = served.model_copy(update={"features": ["price", "new"], "release": "v2"})
    world.put(impression.to_json(), Topic.impressions)
    world.put(served.to_json(), Topic.served)
    world.put(other.to_json(), Topic.served)
    drain(consumer(world), world)
    for table in Lake:
        for rows in world.tables(table):
            assert rows.schema.names[: len(LAKE_COLUMNS[table])] == list(LAKE_COLUMNS[table])
    [kept] = world.rows(Lake.impressions)
    assert kept["sources"] == [["popular"], []]
    rows = world.rows(Lake.served)
    assert [(r["item_id"], r["place"], r["price"], r["rank_x"]) for r in rows[:2]] == [
        ("1", 1, 1.5, None), ("2", 2, 2.5, 3.0),
    ]  # fmt: skip
    assert [row.get("new") for row in rows] == [None, None, None, 3.0]


@pytest.mark.parametrize("topic", [t for t in Topic if t is not Topic.dead_letters])
@pytest.mark.parametrize(
    "poison",
    [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"time":' + b"9" * 400 + b"}", b'{"time":NaN}'],
)  # fmt: skip
def test_poison_becomes_a_dead_letter(topic: Topic, poison: bytes) -> None:
    world = World()
    world.put(poison, topic)
    drain(consumer(world), world)
    assert len(world.rows(Lake.dead_letters)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"time": -1}, {"time": 10**30}, {"rows": [[1.0]]}, {"rows": [[], []]}, {"scores": []},
        {"versions": {"item_catalogue": [1]}}, {"features": ["time"]}, {"features": ["x", "x"]}, {"items": ["\ud800", "b"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_served_list_that_is_not_whole_becomes_a_dead_letter(change: dict[str, object]) -> None:
    whole = {
        "request_id": "r", "session_id": "s", "time": NOW, "asked_at": NOW, "release": "v",
        "index": "i", "session_version": -1, "events": [], "context": {}, "exclude": [],
        "candidates": 150, "degraded": [], "visited": [], "visited_versions": {}, "versions": {},
        "features": ["price"],
        "items": ["a", "b"], "rows": [[1.0], [2.0]], "scores": [1.0, 2.0],
    }  # fmt: skip
    world = World()
    world.put(json.dumps(whole).encode(), Topic.served)
    world.put(json.dumps(whole | change).encode(), Topic.served)
    drain(consumer(world), world)
    assert len(world.rows(Lake.dead_letters)) == 1
    assert len(world.rows(Lake.served)) == 2


def test_the_memory_of_states_is_bounded_and_true() -> None:
    from orchestrator.consumer.sessions import Sessions

    world = World()
    sessions = Sessions(FakeStates(world), max_cached_events=3)
    expected: dict[str, SessionState] = {}
    for number in range(20):
        name = f"s{number % 5}"
        event = parse_event(click(name, str(number), number), NOW * 2)
        told = SessionEvent.of(event, number)
        expected[name] = fold(expected.get(name, SessionState()), [told])
        changed = sessions.fold([(event, number)])
        FakeStates(world).write(changed)
    assert world.states == expected
    assert sessions._cached_events <= 3
