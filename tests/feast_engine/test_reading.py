"""Reading without a server: replies as Redis would give them."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta

import numpy as np
import pytest

from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings
from feast_engine.connection import connect, connect_async, parse
from feast_engine.decode import table_of
from feast_engine.layout import encode_column, encode_timestamp, layout_of
from feast_engine.reader import OnlineReader, ReadRequest, Status, SyncReader, ViewRows, _Plan
from feast_engine.writer import OnlineWriter

HALF_HOUR = timedelta(minutes=30) // timedelta(milliseconds=1)
NOW = 1_790_000_000_000


def read_context(event_time: int, moment: int | None) -> ViewRows:
    """One stored row of `context` and one that is not there, as of a moment."""
    plan = _Plan("shop", [ReadRequest("context", ["s", "t"], ["device"])])
    [device] = encode_column(layout_of("context", "shop").types["device"], [2.0])
    replies: list[list[bytes | None]] = [[encode_timestamp(event_time), device], [None, None]]
    return plan.joined([plan.rows_of(0, table_of(replies, 2), moment)])[0]


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (-1000, Status.PRESENT),  # an event from after the moment counts
        (0, Status.PRESENT),
        (HALF_HOUR, Status.PRESENT),
        (HALF_HOUR + 1, Status.TOO_OLD),
    ],
)
def test_the_maximum_age_is_applied(age: int, status: Status) -> None:
    rows = read_context(NOW - age, NOW)
    assert rows.status.tolist() == [status, Status.MISSING]
    expected = 2.0 if status is Status.PRESENT else np.nan
    np.testing.assert_array_equal(rows.columns["device"], np.array([expected, np.nan], np.float32))


@pytest.mark.parametrize("moment", [None, NOW, NOW + HALF_HOUR + 1])
def test_rows_tell_their_version_also_when_too_old(moment: int | None) -> None:
    assert read_context(NOW, moment).event_times_ms.tolist() == [NOW, -1]


def test_without_a_moment_nothing_is_too_old() -> None:
    assert read_context(0, None).status.tolist() == [Status.PRESENT, Status.MISSING]


def test_requests_for_the_same_keys_share_a_command() -> None:
    keys = ["a", "b"]
    plan = _Plan("shop", [ReadRequest("item_catalogue", keys), ReadRequest("item_activity", keys)])
    [piece] = plan.payload()
    assert len(piece.keys) == len(keys)
    names = [
        layout_of(view, "shop").fields.values() for view in ("item_catalogue", "item_activity")
    ]
    assert len(piece.arguments) == 2 + sum(map(len, names))


def test_no_keys_give_no_rows() -> None:
    plan = _Plan("shop", [ReadRequest("item_catalogue", [])])
    [piece] = plan.payload()
    assert not piece.keys
    rows = plan.joined([plan.rows_of(0, table_of([], len(piece.arguments)), NOW)])[0]
    assert {len(column) for column in rows.columns.values()} == {0}
    assert len(rows.status) == len(rows.event_times_ms) == 0


def test_a_feature_of_another_view_is_refused() -> None:
    with pytest.raises(UsageError, match="hour"):
        _Plan("shop", [ReadRequest("item_catalogue", ["a"], ["price", "hour"])])


def test_connection_strings_are_feasts() -> None:
    nodes, options = parse("a:1,b:2,ssl=true,db=3,password=0123", 1.5)
    assert nodes == [("a", 1), ("b", 2)]
    assert options == {
        "ssl": True, "db": 3, "password": "0123",
        "socket_timeout": 1.5, "socket_connect_timeout": 1.5,
    }  # fmt: skip


@pytest.fixture
def nowhere() -> Settings:
    """Settings whose Redis is a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Settings.model_validate({"redis_port": free.getsockname()[1]})


def test_a_redis_that_is_down_is_told(nowhere: Settings) -> None:
    requests = [ReadRequest("context", ["s"])]
    columns = {"device": [1.0], "traffic_source": [1.0]}
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1.*nextclick up"):
        SyncReader(nowhere, connect(nowhere, 0.2)).read(requests, NOW)
    with pytest.raises(ServiceError, match="nextclick up"):
        OnlineWriter(nowhere, connect(nowhere, 0.2)).write("context", ["s"], [NOW], columns)

    async def read() -> None:
        client = connect_async(nowhere, 0.2)
        try:
            await OnlineReader(nowhere, client).read(requests, NOW, 0.5)
        finally:
            await client.aclose()

    with pytest.raises(ServiceError, match="nextclick up"):
        asyncio.run(read())


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"device": [1.0]}, "traffic_source"),
        ({"device": [1.0], "traffic_source": [1.0], "colour": [1.0]}, "colour"),
        ({"device": [1.0, 2.0], "traffic_source": [1.0]}, "device"),
    ],
)
def test_a_write_that_does_not_fit_is_refused(
    nowhere: Settings, columns: dict[str, list[float]], told: str
) -> None:
    writer = OnlineWriter(nowhere, connect(nowhere, 0.2))
    with pytest.raises(UsageError, match=told):
        writer.write("context", ["s"], [NOW], columns)
