"""A planted shop: what follows what is known, so the right answer is too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from candidate_service.index import CandidateIndex, build_index
from contracts.events import EventType

DAY = 86_400_000
CUTOFF = 1_000 * DAY
ODD_IDS = ("-1", "nul\x00byte", "ünïcödé ✓", " ", "a" * 256)

Row = tuple[str, int, EventType, str | None]


def events(rows: Sequence[Row]) -> pa.Table:
    """`events_clean` as far as an index reads it, from (visit, time, type, item)."""
    visits, times, types, items = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "visit": pa.array(visits, pa.string()),
            "time": pa.array(times, pa.int64()),
            "received": pa.array(times, pa.int64()),
            "key": pa.array(range(len(rows)), pa.int64()),
            "type": pa.array([int(kind) for kind in types], pa.int32()),
            "item_id": pa.array(items, pa.string()),
        }
    )


def visit(name: str, items: Sequence[str], end: int = CUTOFF - DAY) -> list[Row]:
    """A visit of views, a minute apart, the last one at `end`."""
    start = end - 60_000 * (len(items) - 1)
    return [
        (name, start + 60_000 * place, EventType.item_view, item)
        for place, item in enumerate(items)
    ]


def planted_rows() -> list[Row]:
    """40 items in a ring, each followed by the next; "i00" starts most visits; some odd ids."""
    ring = [f"i{number:02d}" for number in range(40)]
    rows: list[Row] = []
    for start in range(40):
        walk = [ring[(start + step) % 40] for step in range(3)]
        rows += visit(f"v{start:02d}", walk)
        rows += visit(f"w{start:02d}", [ring[0], ring[start]])
    for number, odd in enumerate(ODD_IDS):
        rows += visit(f"odd{number}", [odd, ring[number]])
    return rows


def planted_vectors() -> pa.Table:
    """Vectors on a circle: the nearest to an item are its neighbours in the ring."""
    import numpy as np

    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 3
    ids = [f"i{number:02d}" for number in range(40)]
    return vectors(dict(zip(ids, values.tolist(), strict=True)))


def vectors(by_item: dict[str, list[float]]) -> pa.Table:
    return pa.table(
        {
            "item_id": pa.array(by_item, pa.string()),
            "vector": pa.array(by_item.values(), pa.list_(pa.float32())),
        }
    )


def planted_index(folder: Path) -> CandidateIndex:
    manifest = build_index(events(planted_rows()), planted_vectors(), CUTOFF, folder)
    return CandidateIndex.load(folder / manifest.version)
