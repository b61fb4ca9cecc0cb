"""Past visits of the test window, as sessions that happen now."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from contracts.errors import UsageError
from contracts.events import Device, EventType, TrafficSource
from contracts.settings import Settings
from contracts.tables import Offline


@dataclass(frozen=True)
class PastVisit:
    """A visit up to `moment`: `events` rows of events_clean, `label` what was clicked next."""

    visit: str
    moment: int
    visited: tuple[str, ...]
    label: str
    events: tuple[dict[str, Any], ...]

    def as_new_session(self) -> tuple[str, list[dict[str, Any]]]:
        """A new session id and the visit's events, moved so that the last one is a second ago."""
        session = f"replay-{uuid4().hex[:12]}"
        shift = int(time.time() * 1000) - 1000 - self.moment
        return session, [_event(row, session, shift) for row in self.events]


def _event(row: dict[str, Any], session: str, shift: int) -> dict[str, Any]:
    event = {
        "session_id": session,
        "type": EventType(row["type"]).name,
        "time": row["time"] + shift,
        "item_id": row["item_id"],
        "position": row["position"] if row["position"] >= 0 else None,
        "device": Device(row["device"]).name,
        "source": TrafficSource(row["source"]).name,
    }
    return {name: value for name, value in event.items() if value is not None}


def past_visits(settings: Settings, at_least: int, count: int) -> list[PastVisit]:
    """`count` moments of the last 7 days at which a visit had `at_least` items, drawn by hash."""
    import duckdb

    queries = f"{settings.offline}/{Offline.queries}/**/*.parquet"
    clean = f"{settings.offline}/{Offline.events_clean}/**/*.parquet"
    with duckdb.connect() as database:
        found = database.execute(
            _SAMPLE, {"queries": queries, "least": at_least, "count": count}
        ).fetchall()
        names = [row[0] for row in found]
        rows = database.execute(_EVENTS, [clean, names]).fetchall()
    if not found:
        raise UsageError(
            f"no visit with {at_least} items: import more events (./nextclick data import FILE)"
        )
    by_visit: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for row in rows:
        by_visit[row[0]].append(dict(zip(_COLUMNS, row, strict=True)))
    return [_past(row, by_visit[row[0]]) for row in found]


def _past(row: tuple[Any, ...], events: list[dict[str, Any]]) -> PastVisit:
    visit, moment, visited, label = row
    known = tuple(event for event in events if event["time"] <= moment)
    return PastVisit(visit, moment, tuple(visited), label, known[-100:])


# prefixes of visits as they come, long and short, as the training reference holds them
_SAMPLE = """
SELECT visit, moment, visited, label FROM read_parquet($queries)
WHERE len(visited) >= $least
  AND moment >= (SELECT max(moment) - 7 * 86400000 FROM read_parquet($queries))
ORDER BY hash(visit, moment), visit, moment LIMIT $count
"""
_COLUMNS = ("visit", "type", "time", "item_id", "position", "device", "source")
_EVENTS = """
SELECT visit, type, time, item_id, position, device, source FROM read_parquet(?)
WHERE visit IN (SELECT unnest(?::VARCHAR[])) ORDER BY visit, time
"""
