"""The layout, held equal to Feast's own functions."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ServiceError, UsageError
from contracts.features import VIEWS, DType
from feast_engine import decode, layout

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own


@pytest.fixture(scope="module", autouse=True)
def imported_feast() -> None:
    """Here, because it takes seconds, which hypothesis would take for a slow function."""
    importlib.import_module("feast.type_map")


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES: dict[DType, st.SearchStrategy[Any]] = {
    DType.float32: st.none() | st.floats(width=32, allow_nan=False),
    DType.int64: st.none() | INT64,
    DType.string: st.none() | TEXT,
    DType.list_int64: st.none() | st.lists(INT64, max_size=12),
    DType.list_string: st.none() | st.lists(TEXT, max_size=12),
}
MISSING: dict[DType, Any] = {
    DType.float32: math.nan,
    DType.int64: 0,
    DType.string: None,
    DType.list_int64: [],
    DType.list_string: [],
}
COLUMNS = st.sampled_from(list(DType)).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(VALUES[dtype], max_size=8))
)
IDS = TEXT | st.sampled_from(["-1", "", "ü☃𝄞", "\x00", "a" * 256])


def feast_bytes(dtype: DType, values: list[Any]) -> list[bytes]:
    """What Feast stores for a column of an applied view."""
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    feast_type = {
        DType.float32: ValueType.FLOAT,
        DType.int64: ValueType.INT64,
        DType.string: ValueType.STRING,
        DType.list_int64: ValueType.INT64_LIST,
        DType.list_string: ValueType.STRING_LIST,
    }[dtype]
    protos = python_values_to_proto_values(values, feast_type)
    return [proto.SerializeToString() for proto in protos]


@given(COLUMNS)
def test_values_are_stored_as_feast_stores_them(column: tuple[DType, list[Any]]) -> None:
    dtype, values = column
    assert layout.encode_column(dtype, values) == feast_bytes(dtype, values)


@given(COLUMNS)
def test_what_feast_stored_is_read_back(column: tuple[DType, list[Any]]) -> None:
    dtype, values = column
    cells = [*feast_bytes(dtype, values), None]
    decoded = decode.decode_column(dtype, cells)
    expected = [MISSING[dtype] if value is None else value for value in [*values, None]]
    if dtype is DType.float32:
        np.testing.assert_array_equal(decoded, np.array(expected, np.float32))
        assert decoded.dtype == np.float32
    else:
        assert decoded.tolist() == expected


@given(
    st.sampled_from(list(DType)).flatmap(
        lambda dtype: st.tuples(
            st.just(dtype),
            st.lists(st.lists(VALUES[dtype], min_size=3, max_size=3), min_size=1, max_size=4),
            st.lists(st.sampled_from([None, b""]), max_size=2),
        )
    )
)
def test_columns_decoded_as_one_are_those_decoded_alone(
    columns: tuple[DType, list[list[Any]], list[decode.Cell]],
) -> None:
    """With cells that are empty and that are not there."""
    dtype, values, missing = columns
    cells = [[*layout.encode_column(dtype, column), *missing] for column in values]
    table = decode.table_of(list(zip(*cells, strict=True)), len(cells))
    decoded = decode.decode_columns(dtype, table, range(len(cells)))
    for column, each in zip(decoded, cells, strict=True):
        alone = [decode.decode_column(dtype, [cell]).tolist()[0] for cell in each]
        assert repr(column.tolist()) == repr(alone)  # in which nan is nan
        assert repr(column.tolist()[3:]) == repr([MISSING[dtype]] * len(missing))


def test_a_number_of_too_many_bytes_is_told() -> None:
    with pytest.raises(ServiceError, match="10 bytes"):
        decode.decode_column(DType.int64, [b"\x20" + b"\x81" * 11 + b"\x01"])


@given(st.sampled_from([view for view in VIEWS.values() if not view.on_demand]), IDS)
def test_a_row_lies_under_feasts_key(view: Any, entity_id: str) -> None:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=view.join_keys, entity_values=[Value(string_val=entity_id)])
    expected = _redis_key("shop", key, entity_key_serialization_version=3)
    assert layout.layout_of(view.name, "shop").key(entity_id) == expected


def test_fields_have_feasts_names() -> None:
    from feast.infra.online_stores.helpers import _mmh3

    for view in (view for view in VIEWS.values() if not view.on_demand):
        fields = layout.layout_of(view.name, "shop").fields
        assert fields == {name: _mmh3(f"{view.name}:{name}") for name in fields}


@settings(max_examples=200)
@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_event_times_are_protobuf_timestamps(milliseconds: int) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    stamp = Timestamp()
    stamp.FromMilliseconds(milliseconds)
    raw = layout.encode_timestamp(milliseconds)
    assert raw == stamp.SerializeToString()
    if milliseconds >= 0:
        table = decode.table_of([[raw], [None]], 1)
        assert decode.decode_timestamps(table, 0).tolist() == [milliseconds, -1]


@pytest.mark.parametrize("dtype", list(DType))
def test_another_type_in_the_store_is_told(dtype: DType) -> None:
    value = {DType.string: 1.0}.get(dtype, "a text")
    stored = layout.encode_column(DType.float32 if dtype is DType.string else DType.string, [value])
    with pytest.raises(ServiceError, match="another type"):
        decode.decode_column(dtype, stored)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (DType.float32, "text"),
        (DType.int64, 1.5),
        (DType.int64, 2**63),
        (DType.string, 1),
        (DType.list_int64, [0.5]),
        (DType.list_int64, [2**63]),
        (DType.list_int64, 7),
        (DType.list_string, [None]),
    ],
)
def test_a_value_of_another_type_is_refused(dtype: DType, value: Any) -> None:
    with pytest.raises(UsageError, match="expected values of"):
        layout.encode_column(dtype, [value])


@pytest.mark.parametrize("name", ["moment", "sessions"])
def test_only_stored_views_have_a_layout(name: str) -> None:
    with pytest.raises(UsageError, match="no stored view"):
        layout.layout_of(name, "shop")
