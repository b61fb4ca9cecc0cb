"""Tables for the `join` benchmark: Parquet files of a history and the rows that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 16
SPAN = timedelta(days=30)
"""Event times and moments lie within it."""
START = datetime(2026, 1, 1, tzinfo=UTC)
FILE_ROWS = 1_000_000
ROWS_AN_ITEM = 100
STRANGERS = 0.02
"""Share of the items that are asked for and have no history."""


@dataclass(frozen=True)
class Size:
    """`asked` rows against `history` rows of `items` items."""

    asked: int
    history: int
    items: int
    seed: int

    @classmethod
    def of(cls, asked: int, history: int, items: int | None, seed: int) -> Size:
        """items None: as many as make `ROWS_AN_ITEM` rows an item."""
        return cls(asked, history, items or max(history // ROWS_AN_ITEM, 1), seed)


def feature_names() -> list[str]:
    return [f"feature_{place:02}" for place in range(FEATURES)]


def write(folder: Path, size: Size) -> None:
    """`folder/history/*.parquet` and `folder/asked.parquet`. No two rows of the history have one
    event time, and each was created when it happened, so that every rule for late rows and ties
    gives the same answers."""
    random = np.random.default_rng(size.seed)
    (folder / "history").mkdir(parents=True)
    for place, table in enumerate(_history(size, random)):
        pq.write_table(
            table, folder / "history" / f"part-{place:03}.parquet", row_group_size=122_880
        )
    pq.write_table(_asked(size, random), folder / "asked.parquet")


def _history(size: Size, random: np.random.Generator) -> Iterator[pa.Table]:
    """Files whose times all lie over the whole span, in no order: no file can be passed over."""
    files = -(-size.history // FILE_ROWS)
    step = _microseconds(SPAN) // size.history
    for place in range(files):
        rows = len(range(place, size.history, files))
        times = _start() + (random.permutation(rows) * files + place) * step
        stamps = pa.array(times, pa.timestamp("us", "UTC"))
        columns = {
            "item_id": _names(random.integers(0, size.items, rows)),
            "event_timestamp": stamps,
            "created_timestamp": stamps,
        }
        values = {name: pa.array(random.random(rows, np.float32)) for name in feature_names()}
        yield pa.table(columns | values)


def _asked(size: Size, random: np.random.Generator) -> pa.Table:
    known = int(size.items * (1 + STRANGERS)) + 1
    moments = _start() + random.integers(0, _microseconds(SPAN), size.asked)
    return pa.table(
        {
            "item_id": _names(random.integers(0, known, size.asked)),
            "event_timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
            "row": pa.array(np.arange(size.asked)),
        }
    )


def _names(numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Array:
    """Texts of 12 characters, as a shop's item ids are."""
    return pa.array(np.char.mod("item-%07d", numbers))


def _start() -> int:
    return _microseconds(START - datetime(1970, 1, 1, tzinfo=UTC))


def _microseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
