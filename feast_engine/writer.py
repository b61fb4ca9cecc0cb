"""Writes rows of stored views into the online store, as Feast's own push would, many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import redis

from contracts.errors import UsageError
from contracts.features import DType
from contracts.settings import Settings
from feast_engine import guard
from feast_engine.columnar import encode_batch
from feast_engine.config import online_config
from feast_engine.connection import SyncClient, unreachable
from feast_engine.expiry import life_seconds
from feast_engine.guard import Rows, Written, sized
from feast_engine.layout import VERSION, ViewLayout, encode_column, encode_timestamp, layout_of


@dataclass(frozen=True)
class ViewWrite:
    """Rows of one stored view.

    keys: n entity ids; event_times_ms: n times from when the values hold, milliseconds since 1970
    UTC; columns: by feature, n values each (None, or nan in float columns: missing). Every
    feature of the view has to be there. versions: of views of a session, n numbers, of which
    states the rows are (`feast_engine.guard`); None: those among the columns, if there are any.
    """

    view: str
    keys: Sequence[str]
    event_times_ms: Sequence[int]
    columns: Mapping[str, Sequence[Any]]
    versions: Sequence[int] | None = None


class OnlineWriter:
    """Writes through `client` (`feast_engine.connection.connect`).

    A row replaces one of the same or an older event time, and never a newer one (see
    `feast_engine.guard`). Of rows of one time the greater version stays, and of rows without
    versions the last write.
    """

    def __init__(self, settings: Settings, client: SyncClient) -> None:
        self._config = online_config(settings)
        self._client = client

    def write(
        self,
        view: str,
        keys: Sequence[str],
        event_times_ms: Sequence[int],
        columns: Mapping[str, Sequence[Any]],
    ) -> Written:
        """One view's rows; see `ViewWrite`."""
        return self.write_many([ViewWrite(view, keys, event_times_ms, columns)])

    def write_many(self, writes: Sequence[ViewWrite]) -> Written:
        """All rows in one round trip; fields of other views in the same hashes stay as they are.

        Everything is checked before the first byte is sent: UsageError names what does not fit.
        ServiceError when Redis does not take it; some rows may then be written, and writing all
        of them again is harmless. How many were written, and how many were older than what is
        stored and so were not.
        """
        return self._send([self._rows(write) for write in writes])

    def write_tables(self, tables: Mapping[str, Any]) -> Written:
        """The same of pyarrow Tables by view, each with the view's key, `event_timestamp` and
        features: for many rows, of which each costs a third; a call costs more than it."""
        return self._send([self._encoded(view, table) for view, table in tables.items()])

    def _send(self, rows: Sequence[Rows]) -> Written:
        try:
            return guard.write(self._client, rows)
        except (redis.RedisError, OSError) as error:
            raise unreachable(self._config, error) from error

    def _encoded(self, view: str, table: Any) -> Rows:
        layout = layout_of(view, self._config.project)
        return encode_batch(layout, table, life_seconds(layout.view, self._config.key_seconds))

    def _rows(self, write: ViewWrite) -> Rows:
        layout = layout_of(write.view, self._config.project)
        _check(write, layout)
        columns = [
            encode_column(dtype, write.columns[name]) for name, dtype in layout.types.items()
        ]
        versions = write.columns.get(VERSION) if write.versions is None else write.versions
        version = b"" if versions is None else layout.version
        if versions is not None and version:
            columns.append(encode_column(DType.int64, versions))
        times = [encode_timestamp(time) for time in write.event_times_ms]
        cells = [list(map(sized, column)) for column in (times, *columns)]
        rows = list(map(b"".join, zip(*cells, strict=True)))
        return Rows(
            names=[layout.timestamp, *layout.fields.values()],
            keys=layout.keys(write.keys),
            cells=b"".join(rows),
            ends=list(accumulate(map(len, rows))),
            life=life_seconds(layout.view, self._config.key_seconds),
            version=version,
        )


def _check(write: ViewWrite, layout: ViewLayout) -> None:
    if set(write.columns) != set(layout.fields):
        lost = sorted(set(layout.fields) - set(write.columns))
        more = sorted(set(write.columns) - set(layout.fields))
        raise UsageError(f"view {write.view!r}: columns missing {lost}, not declared {more}")
    sizes = {name: len(values) for name, values in write.columns.items()}
    sizes["event_times_ms"] = len(write.event_times_ms)
    if write.versions is not None:
        sizes["versions"] = len(write.versions)
    wrong = {name: size for name, size in sizes.items() if size != len(write.keys)}
    if wrong:
        raise UsageError(f"view {write.view!r}: {len(write.keys)} keys, but {wrong} values")
