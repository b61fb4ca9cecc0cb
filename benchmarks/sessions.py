"""Requests as a shop would send them: real visits from the event lake, moved to now."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from contracts.settings import Settings
from contracts.tables import Lake
from monitoring.lake import lake_dataset

SESSIONS = 2000
NEWEST_FILES = 50
SEED = 7
_COLUMNS = {"session_id": "string", "type": "string", "time": "int64", "item_id": "string"}


def request_bodies(settings: Settings, k: int, carry: int) -> tuple[list[bytes], str]:
    """Bodies of POST /v1/recommend, and where they come from: "lake" or "synthetic".

    Each names a session and carries its newest `carry` events, at times that end now: visits of
    last month are over, and a load of visits that are over measures only cold answers. Without a
    lake the sessions and items are made up, which the model does not know.
    """
    now = int(time.time() * 1000)
    visits = list(_visits(settings, carry)) if carry else []
    if not visits:
        ids = _session_ids(settings)
        made_up = [f"benchmark-{index}" for index in range(SESSIONS)]
        bodies = [_body(session, [], k, now) for session in ids or made_up]
        return bodies, "lake" if ids else "synthetic"
    return [_body(session, events, k, now) for session, events in visits], "lake"


def _body(session: str, events: list[dict[str, Any]], k: int, now: int) -> bytes:
    shift = now - max((event["time"] for event in events), default=now)
    moved = [{**event, "time": event["time"] + shift} for event in events]
    return json.dumps({"session_id": session, "k": k, "events": moved}).encode()


def _visits(settings: Settings, carry: int) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    rows = _query(settings, _NEWEST, [str(SEED), SESSIONS, carry])
    for session, events in groupby(rows, key=lambda row: str(row[0])):
        yield session, [{"type": e[1], "time": e[2], "item_id": e[3]} for e in events]


def _session_ids(settings: Settings) -> list[str]:
    return [str(row[0]) for row in _query(settings, _IDS, [str(SEED), SESSIONS])]


# by hash: the same sessions whatever the files' order
_IDS = "select session_id from lake group by 1 order by hash(session_id || ?) limit ?"
_NEWEST = f"""select session_id, type, time, item_id from lake
    semi join ({_IDS}) using (session_id) where item_id is not null
    qualify row_number() over (partition by session_id order by time desc, item_id) <= ?
    order by session_id, time, item_id"""  # noqa: S608  # no text from outside


def _query(settings: Settings, query: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    import duckdb
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])
    with duckdb.connect() as database:
        database.register("lake", lake_dataset(settings, Lake.events, schema, NEWEST_FILES))
        found: list[tuple[Any, ...]] = database.execute(query, parameters).fetchall()
    return found
