"""Columns encoded as one are the cells that are encoded one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.features import VIEWS, DType, of_view
from feast_engine.columnar import encode_batch
from feast_engine.guard import sized
from feast_engine.layout import encode_column, encode_timestamp, layout_of
from tests.stack.feast_shop import VALUES

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(-62_135_596_800_000, 253_402_300_799_999) | st.sampled_from([0, 1, 1000, -1])
ARROW = {
    DType.float32: pa.float32(),
    DType.int64: pa.int64(),
    DType.string: pa.string(),
    DType.list_int64: pa.list_(pa.int64()),
    DType.list_string: pa.list_(pa.string()),
}
STORED = [view for view in VIEWS.values() if not view.on_demand]


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[str], list[int], dict[str, list[Any]]]:
    view = draw(st.sampled_from(STORED))
    size = draw(st.integers(0, 5))
    long = st.sampled_from(["", "-1", "ü☃𝄞", "a" * 200, "b" * 70_000])

    def values(strategy: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(strategy, min_size=size, max_size=size))

    columns = {f.name: values(st.none() | VALUES[f.dtype]) for f in of_view(view.name)}
    return view.name, values(long | st.text(max_size=4)), values(TIMES), columns


def batch_of(view: str, ids: list[str], times: list[int], columns: dict[str, list[Any]]) -> Any:
    types = {f.name: ARROW[f.dtype] for f in of_view(view)}
    stamps = pa.array(times, pa.int64()).cast(pa.timestamp("ms", "UTC"))
    arrays = {name: pa.array(values, types[name]) for name, values in columns.items()}
    return pa.table(
        {VIEWS[view].join_keys[0]: pa.array(ids, pa.string()), "event_timestamp": stamps, **arrays}
    )


@given(tables())
def test_rows_are_the_same_bytes(
    table: tuple[str, list[str], list[int], dict[str, list[Any]]],
) -> None:
    view, ids, times, columns = table
    layout = layout_of(view, "shop")
    rows = encode_batch(layout, batch_of(view, ids, times, columns), 7)
    cells = [
        [encode_timestamp(time) for time in times],
        *(encode_column(layout.types[name], columns[name]) for name in layout.fields),
    ]
    if view == "session":
        cells.append(encode_column(DType.int64, columns["session_version"]))
    each = [b"".join(map(sized, row)) for row in zip(*cells, strict=True)]
    assert rows.cells == b"".join(each)
    assert list(rows.ends) == np.cumsum([len(row) for row in each], dtype=int).tolist()
    assert list(rows.keys) == [layout.key(name) for name in ids]
    assert list(rows.names) == [layout.timestamp, *layout.fields.values()]
    assert rows.life == 7
    assert rows.version == (layout.fields["session_version"] if view == "session" else b"")


def test_times_keep_their_microseconds() -> None:
    table = batch_of("context", ["a"], [0], {"device": [1.0], "traffic_source": [None]})
    stamps = pa.array([1_790_000_000_000_001_999], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    table = table.set_column(1, "event_timestamp", stamps)
    from google.protobuf.timestamp_pb2 import Timestamp

    stamp = Timestamp(seconds=1_790_000_000, nanos=1000).SerializeToString()
    assert encode_batch(layout_of("context", "shop"), table, None).cells.startswith(sized(stamp))


def test_other_types_are_cast_where_nothing_is_lost() -> None:
    plain = batch_of("context", ["a"], [5], {"device": [2.0], "traffic_source": [None]})
    layout = layout_of("context", "shop")
    other = pa.table(
        {
            "traffic_source": pa.nulls(1),
            "session_id": pa.array(["a"]).dictionary_encode(),
            "device": pa.array([2.0], pa.float64()),
            "event_timestamp": pa.array([5], pa.int64()).cast(pa.timestamp("ms")),
            "more": [1],
        }
    )
    assert encode_batch(layout, other, None) == encode_batch(layout, plain, None)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("session_id", None, "needs the column 'session_id'"),
        ("device", None, "needs the column 'device'"),
        ("device", ["text"], "device is string, expected float32"),
        ("session_id", pa.nulls(1, pa.string()), "a row has no session_id"),
        ("event_timestamp", pa.nulls(1, pa.timestamp("us")), "a row has no event_timestamp"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(column: str, values: Any, told: str) -> None:
    table = batch_of("context", ["a"], [5], {"device": [2.0], "traffic_source": [None]})
    table = table.drop_columns([column])
    if values is not None:
        table = table.append_column(column, pa.array(values))
    with pytest.raises(UsageError, match=told):
        encode_batch(layout_of("context", "shop"), table, None)
