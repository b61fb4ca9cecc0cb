"""Messages on their way to the lake: columns in memory until a file is worth writing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import uuid4

import pyarrow as pa

from contracts.dead_letters import DeadLetter
from contracts.events import (
    Device,
    Event,
    EventType,
    Impression,
    PriceChange,
    Product,
    ServedRows,
    TrafficSource,
)
from contracts.tables import ASKED, Lake, version_column
from orchestrator.consumer.intents import Intent
from orchestrator.consumer.lake import files_of, schema_of
from orchestrator.consumer.parsing import Parsed
from orchestrator.consumer.ports import LakeTables, Place, Record

CHUNK_ROWS = 1000
"""Rows that are kept as Python objects before they become Arrow columns."""
TABLE_OF: dict[type[Any], Lake] = {
    Event: Lake.events,
    Product: Lake.products,
    PriceChange: Lake.prices,
    Impression: Lake.impressions,
    ServedRows: Lake.served,
    DeadLetter: Lake.dead_letters,
}


@dataclass(frozen=True)
class Limits:
    """When the buffer is due. `bytes` is of the messages as they came; in memory a waiting message
    takes up to 5 times that, and a second buffer may be on its way into the lake: 16 MB of messages
    bound the two to 160 MB."""

    rows: int = 50_000
    bytes: int = 16 * 1024 * 1024
    seconds: float = 15.0  # age of the oldest message; at most 5,760 small files a day and table
    idle_rows: int = 1000  # when nothing more is waiting, so many are worth a file at once


class LakeBuffer:
    """Collects parsed messages, and knows the offsets that may be committed once they are stored."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending: dict[Lake, list[Parsed]] = defaultdict(list)
        self._chunks: dict[Lake, list[pa.Table]] = defaultdict(list)
        self._spans: dict[Place, tuple[int, int]] = {}  # first and last offset, both included
        self._since = 0.0
        self._bytes = 0
        self._name = uuid4().hex
        self.rows = 0  # messages, also those that have no row

    def add(self, messages: Sequence[Parsed], now: float) -> None:
        """Take messages that were polled at `now` (monotonic seconds)."""
        self._since = self._since if self.rows else now
        self._note_spans([parsed.record for parsed in messages])
        self.rows += len(messages)
        kinds = [type(parsed.message) for parsed in messages]
        for kind in TABLE_OF.keys() & set(kinds):
            alike = [parsed for parsed, own in zip(messages, kinds, strict=True) if own is kind]
            self._pending[TABLE_OF[kind]] += alike
        for table, pending in list(self._pending.items()):
            if len(pending) >= CHUNK_ROWS:
                self._compact(table)

    def _note_spans(self, records: Sequence[Record]) -> None:
        self._bytes += sum(len(record.value) for record in records)
        start = 0
        for place, run in groupby((record.topic, record.partition) for record in records):
            end = start + len(list(run))
            first, last = records[start].offset, records[end - 1].offset
            self._spans[place] = self._spans.get(place, (first, last))[0], last
            start = end

    def due(self, now: float, idle: bool) -> bool:
        """Whether to store now. `idle`: the last poll brought nothing."""
        limits = self._limits
        return self.rows > 0 and (
            self.rows >= (limits.idle_rows if idle else limits.rows)
            or self._bytes >= limits.bytes
            or now - self._since >= limits.seconds
        )

    def offsets(self) -> dict[Place, int]:
        """Where to go on once everything here is stored."""
        return {place: last + 1 for place, (_, last) in self._spans.items()}

    @property
    def name(self) -> str:
        """Of the store that this buffer becomes: no other one, of whatever process, has it."""
        return self._name

    def store(self, lake: LakeTables) -> dict[Lake, int]:
        """Note what will be written, then write it; returns rows by table. The buffer keeps all of
        it: after an error, `store` again."""
        for table in list(self._pending):
            self._compact(table)
        written: dict[Lake, int] = {}
        files: dict[str, pa.Table] = {}
        for table, chunks in self._chunks.items():
            rows = pa.concat_tables(chunks, promote_options="default")
            files |= files_of(table, rows, f"{table.value}-{self._name}")
            written[table] = rows.num_rows
        lake.note(Intent(self._name, dict(self._spans), tuple(files)))
        for path, part in files.items():
            lake.write_file(path, part)
        return written

    def _compact(self, table: Lake) -> None:
        pending = self._pending.pop(table, [])
        if table is Lake.served:
            self._chunks[table].extend(_served_tables(pending))
        elif pending:
            self._chunks[table].append(_table(table, pending))


def _table(table: Lake, pending: Sequence[Parsed]) -> pa.Table:
    schema = schema_of(table)
    columns: dict[str, Sequence[Any]] = {
        "received": [parsed.known for parsed in pending],
        "partition": [parsed.record.partition for parsed in pending],
        "offset": [parsed.record.offset for parsed in pending],
    }
    told = [name for name in schema.names if name not in columns]
    values = map(attrgetter(*told), (parsed.message for parsed in pending))
    columns |= zip(told, zip(*values, strict=True), strict=True)
    for name in _NAMES.keys() & columns.keys():
        columns[name] = list(map(_NAMES[name].__getitem__, columns[name]))
    return pa.table(columns, schema=schema)


def _names(enum: type[IntEnum]) -> list[str]:
    """Names by code: quicker than asking a member for its name."""
    members = {int(member): member.name for member in enum}
    return [members.get(code, "") for code in range(max(members) + 1)]


_NAMES = {"type": _names(EventType), "device": _names(Device), "source": _names(TrafficSource)}
"""Of the columns that hold enums."""


def _served_tables(pending: Sequence[Parsed]) -> list[pa.Table]:
    """One table for each list of feature columns: releases may differ in it."""
    by_features: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for parsed in pending:
        message = parsed.message
        if isinstance(message, ServedRows):
            by_features[tuple(message.features)].extend(_served_rows(message, parsed))
    base = schema_of(Lake.served)
    return [
        pa.Table.from_pylist(
            rows, schema=pa.schema([*base, *((name, pa.float32()) for name in features)])
        )
        for features, rows in by_features.items()
    ]


def _served_rows(message: ServedRows, parsed: Parsed) -> list[dict[str, Any]]:
    shared = {
        "request_id": message.request_id,
        "session_id": message.session_id,
        "time": message.time,
        "release": message.release,
        "asked_at": message.asked_at,
        "session_version": message.session_version,
        "asked": json.dumps({name: getattr(message, name) for name in ASKED}),
        "received": parsed.known,
        "partition": parsed.record.partition,
        "offset": parsed.record.offset,
    }
    answers = zip(message.items, message.scores, message.rows, strict=True)
    return [
        {
            **dict(zip(message.features, row, strict=True)),
            **shared,
            "item_id": item,
            "place": place,
            "score": score,
            **{version_column(view): of[place - 1] for view, of in message.versions.items() if of},
        }
        for place, (item, score, row) in enumerate(answers, start=1)
    ]
