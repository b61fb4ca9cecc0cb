"""The newest event time wins, on a real Redis and on a real Redis Cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contracts.features import of_view
from contracts.session import SessionEvent, SessionState
from contracts.settings import Settings
from feast_engine import guard
from feast_engine.connection import connect, connect_async
from feast_engine.guard import Written
from feast_engine.layout import layout_of
from feast_engine.reader import ReadRequest, SyncReader, ViewRows
from feast_engine.writer import OnlineWriter, ViewWrite
from orchestrator.consumer.online import FeastStates, rows, tables
from tests.stack.lone_redis import lone_redis, redis_cluster

NOW = 1_790_000_000_000
KEYS = ["a", "b", "-1"]
TIMES = [-(2**40), -1000, -1, 0, 1, 999, 127_000, 128_000, 16_384_000, NOW - 1, NOW, NOW + 1, 2**43]
"""Also such whose bytes sort otherwise than they do."""
Write = tuple[int, int]
"""Place in KEYS, event time."""
WRITERS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(TIMES)), max_size=8),
    min_size=1,
    max_size=4,
)
numbers = count(1)
examples = count()


@pytest.fixture(scope="module", params=[lone_redis, redis_cluster])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    with request.param(tmp_path_factory.mktemp("redis")) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(shop: Settings) -> Iterator[Any]:
    with connect(shop) as client:
        yield client


def columns(view: str, values: list[float]) -> dict[str, list[Any]]:
    """Rows each of whose fields hold the same number, or nothing where it is 0."""
    return {f.name: [value or None for value in values] for f in of_view(view)}


def read(shop: Settings, client: Any, view: str, keys: list[str]) -> ViewRows:
    return SyncReader(shop, client).read([ReadRequest(view, keys)], None)[0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(writers=WRITERS, together=st.booleans())
@example(writers=[[(0, NOW), (0, NOW - 1)]], together=False)
@example(writers=[[(0, 128_000), (0, 127_000)]], together=True)
@example(writers=[[(0, -1), (0, -1000)], [(0, -(2**40))]], together=True)
def test_the_newest_row_stays_and_is_of_one_write(
    shop: Settings, client: Any, writers: list[list[Write]], together: bool
) -> None:
    """Each writer is a thread with a connection of its own, and writes in one call or in many."""
    run = next(examples)
    names = [f"{key}/{run}" for key in KEYS]
    rows = [[(key, time, next(numbers)) for key, time in writes] for writes in writers]
    results: list[Written] = []

    def work(mine: list[tuple[int, int, int]]) -> None:
        with connect(shop) as own:
            writer = OnlineWriter(shop, own)
            for some in [mine] if together else [[row] for row in mine]:
                keys = [names[key] for key, _, _ in some]
                values = columns("item_activity", [float(number) for _, _, number in some])
                times = [time for _, time, _ in some]
                results.append(writer.write("item_activity", keys, times, values))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given_rows = [row for mine in rows for row in mine]
    assert sum(each.rows + each.older for each in results) == len(given_rows)
    stored = read(shop, client, "item_activity", names)
    for place, name in enumerate(names):
        newest = max((time for key, time, _ in given_rows if key == place), default=None)
        fields = client.hgetall(layout_of("item_activity", shop.feast_project).key(name))
        assert bool(fields) == (newest is not None)
        if newest is not None:
            assert stored.event_times_ms[place] == newest
            [number] = {float(column[place]) for column in stored.columns.values()}
            assert number in {n for key, time, n in given_rows if (key, time) == (place, newest)}


def test_rows_are_counted_and_older_ones_leave_no_trace(shop: Settings, client: Any) -> None:
    writer = OnlineWriter(shop, client)
    key = layout_of("item_activity", shop.feast_project).key("counted")
    assert writer.write(
        "item_activity", ["counted", "other"], [NOW, NOW], columns("item_activity", [1.0, 2.0])
    ) == Written(2, 0)
    client.persist(key)
    before = client.hgetall(key)
    older = writer.write(
        "item_activity", ["counted", "third"], [NOW - 1, NOW], columns("item_activity", [3.0, 3.0])
    )
    assert older == Written(1, 1)
    assert client.hgetall(key) == before
    assert client.ttl(key) == -1
    assert writer.write_many([]) == Written()


def test_views_of_one_hash_are_guarded_apart(shop: Settings, client: Any) -> None:
    writer = OnlineWriter(shop, client)
    writer.write("item_activity", ["both"], [NOW], columns("item_activity", [1.0]))
    catalogue: dict[str, list[Any]] = {name: [1] for name in ("category_id", "brand_id")}
    catalogue |= {"category": ["a.b"], "brand": ["c"], "available": [1], "price": [5.0]}
    assert writer.write("item_catalogue", ["both"], [NOW - 1], catalogue) == Written(1, 0)
    assert writer.write(
        "item_activity", ["both"], [NOW - 1], columns("item_activity", [2.0])
    ) == Written(0, 1)
    assert read(shop, client, "item_catalogue", ["both"]).columns["price"].tolist() == [5.0]
    assert read(shop, client, "item_activity", ["both"]).columns["views_7d"].tolist() == [1.0]


def test_a_row_that_lost_its_values_loses_them_online(shop: Settings, client: Any) -> None:
    writer = OnlineWriter(shop, client)
    writer.write("item_activity", ["lost"], [NOW], columns("item_activity", [1.0]))
    writer.write("item_activity", ["lost"], [NOW + 1], columns("item_activity", [0.0]))
    fields = client.hgetall(layout_of("item_activity", shop.feast_project).key("lost"))
    assert {value for name, value in fields.items() if name != b"_ts:item_activity"} == {b""}


def test_what_is_no_time_is_replaced(shop: Settings, client: Any) -> None:
    layout = layout_of("item_activity", shop.feast_project)
    for number, damaged in enumerate([b"\x08", b"text", b"\x08\xff", b"\x10", b"\x0a\x01"]):
        client.hset(layout.key(f"damaged{number}"), layout.timestamp, damaged)
        written = OnlineWriter(shop, client).write(
            "item_activity", [f"damaged{number}"], [0], columns("item_activity", [1.0])
        )
        assert written == Written(1, 0)


def test_rows_of_any_size_and_number(shop: Settings, client: Any) -> None:
    """Cells of more than 254 bytes, calls of few large rows, several windows of many small ones."""
    writer = OnlineWriter(shop, client)
    sizes = [0, 1, 125, 254, 255, 256, 70_000, 300_000, *range(200)]
    texts = ["x" * size for size in sizes]
    numbers = ("category_id", "brand_id", "available", "price")
    given_columns: dict[str, list[Any]] = {name: [1] * len(sizes) for name in numbers}
    given_columns |= {"category": texts, "brand": texts[::-1]}
    keys = [f"size{number}" for number in range(len(sizes))]
    written = writer.write("item_catalogue", keys, [NOW] * len(keys), given_columns)
    assert written == Written(len(keys), 0)
    stored = read(shop, client, "item_catalogue", keys).columns
    assert stored["category"].tolist() == texts
    assert stored["brand"].tolist() == texts[::-1]
    many = 3 * guard.CALL_ROWS * guard._WINDOW_CALLS + 1
    keys = [f"many{number}" for number in range(many)]
    values = [float(number + 1) for number in range(many)]
    writer.write("item_activity", keys, [NOW] * many, columns("item_activity", values))
    assert read(shop, client, "item_activity", keys).columns["views_1d"].tolist() == values


def forget_scripts(client: Any) -> None:
    """What a restart of Redis does."""
    client.script_flush()


def test_a_server_that_forgot_the_script_is_taught_it(shop: Settings, client: Any) -> None:
    many = 3 * guard.CALL_ROWS * guard._WINDOW_CALLS
    keys = [f"taught{number}" for number in range(many)]
    values = columns("item_activity", [float(number + 1) for number in range(many)])
    forget_scripts(client)
    assert OnlineWriter(shop, client).write("item_activity", keys, [NOW] * many, values) == Written(
        many, 0
    )
    stored = read(shop, client, "item_activity", keys)
    assert stored.columns["views_1d"].tolist() == [float(n + 1) for n in range(many)]


def test_writes_on_asyncio_are_the_same(shop: Settings, client: Any) -> None:
    layout = layout_of("context", shop.feast_project)
    names = [layout.timestamp, *layout.fields.values()]
    cells = b"".join(guard.sized(cell) for cell in (b"\x08\x05", b"\x35\0\0\0\0", b""))
    rows = [guard.Rows(names, [layout.key("async")], cells, [len(cells)], 100)]
    older = [guard.Rows(names, [layout.key("async")], guard.sized(b"\x08\x04") + b"\0\0", [5], 0)]

    async def work() -> list[Written]:
        own = connect_async(shop)
        try:
            return [await guard.write_async(own, each) for each in (rows, older, [])]
        finally:
            await own.aclose()

    forget_scripts(client)
    assert asyncio.run(work()) == [Written(1, 0), Written(0, 1), Written()]
    assert client.hget(layout.key("async"), layout.timestamp) == b"\x08\x05"
    assert 0 < client.ttl(layout.key("async")) <= 100


def test_what_the_server_refuses_is_raised(shop: Settings, client: Any) -> None:
    layout = layout_of("item_activity", shop.feast_project)
    client.set(layout.key("text"), "no hash")
    rows = guard.Rows([layout.timestamp], [layout.key("text")], guard.sized(b""), [1], None)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        guard.write(client, [rows])
    assert client.ping()  # and the connection is whole


def test_of_one_time_the_newer_state_of_a_session_stays(shop: Settings, client: Any) -> None:
    """A consumer that lost its partitions wakes up in the middle of its write, after its successor
    has folded a late event, which moves the version and not the time."""
    session = "zombie"

    def state(*offsets: int) -> dict[str, SessionState]:
        late = [
            SessionEvent(NOW - 1000 * n, n, 3, str(n), -1, n % 4, 1, at)
            for n, at in enumerate(offsets)
        ]
        return {session: SessionState(tuple(sorted(late)))}

    before, after = state(5), state(5, 9)
    store = FeastStates(shop)
    store.write(before)
    store.write(after)
    writer = OnlineWriter(shop, client)
    sessions, times, columns = rows(before)
    stale = [ViewWrite(v, sessions, times, columns[v], [5]) for v in ("session", "context")]
    assert writer.write_many(stale) == Written(0, 2)
    assert writer.write_tables(tables(before)) == Written(0, 2)
    assert store.read([session]) == list(after.values())
    assert read(shop, client, "context", [session]).columns["device"].tolist() == [1.0]
    store.write(after)  # the same again, as after a crash
    assert writer.write("context", [session], [NOW + 1], columns["context"]) == Written(1, 0)
