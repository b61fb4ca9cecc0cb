"""Keys of a join, where their types say nothing or something else than they should."""

from __future__ import annotations

import pyarrow as pa
import pytest

from contracts.errors import UsageError
from feast_engine.join_keys import coded_keys

HISTORY = pa.schema([("item", pa.string())])
KEYS = {"item_id": "item"}


@pytest.mark.parametrize("rows", [0, 3])
def test_a_column_of_nothing_may_have_any_type(rows: int) -> None:
    keys = coded_keys(pa.table({"item_id": pa.nulls(rows, pa.float64())}), KEYS, HISTORY)
    assert keys.codes.tolist() == [-1] * rows
    assert keys.table.num_rows == 0


def test_a_number_never_equals_a_text() -> None:
    with pytest.raises(UsageError, match="item_id"):
        coded_keys(pa.table({"item_id": pa.array([1.0])}), KEYS, HISTORY)
