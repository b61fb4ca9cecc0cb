"""Writes rows of stored views into the online store, as Feast's own push would, many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import redis

from contracts.errors import UsageError
from contracts.features import VIEWS, View
from contracts.settings import Settings
from feast_engine.config import online_config
from feast_engine.connection import SyncClient, unreachable
from feast_engine.layout import ViewLayout, encode_column, encode_timestamp, layout_of
from feast_engine.roundtrip import Command, exchange

KEPT = timedelta(days=1)
"""How long a hash all of whose values age outlives its last write. Long enough that an outage of
the consumer loses no state, short enough that yesterday's sessions fill no memory."""


@dataclass(frozen=True)
class ViewWrite:
    """Rows of one stored view.

    keys: n entity ids; event_times_ms: n times from when the values hold, milliseconds since 1970
    UTC; columns: by feature, n values each (None, or nan in float columns: missing). Every
    feature of the view has to be there.
    """

    view: str
    keys: Sequence[str]
    event_times_ms: Sequence[int]
    columns: Mapping[str, Sequence[Any]]


class OnlineWriter:
    """Writes through `client` (`feast_engine.connection.connect`).

    Unlike Feast's, these writes win over what is stored whatever its event time: a late event
    changes a session's state without moving its newest time. So there may be one writer of a key
    at a time, which Kafka's partitions by session give.
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
    ) -> None:
        """One view's rows; see `ViewWrite`."""
        self.write_many([ViewWrite(view, keys, event_times_ms, columns)])

    def write_many(self, writes: Sequence[ViewWrite]) -> None:
        """All rows in one pipeline; fields of other views in the same hashes stay as they are.

        Everything is checked before the first byte is sent: UsageError names what does not fit.
        ServiceError when Redis does not take it; some rows may then be written, and writing all
        of them again is harmless.
        """
        project = self._config.project
        rows = [(write, layout_of(write.view, project)) for write in writes]
        commands = [command for write, layout in rows for command in _commands(write, layout)]
        lives = {
            layout.key(key): life
            for write, layout in rows
            if (life := self._life(layout.view)) is not None
            for key in write.keys
        }
        commands += [Command(b"EXPIRE", key, [b"%d" % life]) for key, life in lives.items()]
        try:
            exchange(self._client, commands)
        except (redis.RedisError, OSError) as error:
            raise unreachable(self._config, error) from error

    def _life(self, view: View) -> int | None:
        """Seconds until the hash leaves Redis: Feast's setting, or less where all of it ages."""
        ages = [each.max_age for each in VIEWS.values() if each.entities == view.entities]
        aging = [age for age in ages if age is not None]
        seconds = self._config.key_seconds
        if len(aging) < len(ages):
            return seconds
        kept = int(max(KEPT, *aging).total_seconds())
        return kept if seconds is None else min(kept, seconds)


def _commands(write: ViewWrite, layout: ViewLayout) -> list[Command]:
    """An HSET for each row."""
    _check(write, layout)
    names = list(layout.fields)
    columns = [encode_column(layout.types[name], write.columns[name]) for name in names]
    fields = [layout.timestamp, *(layout.fields[name] for name in names)]
    times = [encode_timestamp(time) for time in write.event_times_ms]
    return [
        Command(b"HSET", layout.key(key), _alternating(fields, cells))
        for key, *cells in zip(write.keys, times, *columns, strict=True)
    ]


def _check(write: ViewWrite, layout: ViewLayout) -> None:
    if set(write.columns) != set(layout.fields):
        lost = sorted(set(layout.fields) - set(write.columns))
        more = sorted(set(write.columns) - set(layout.fields))
        raise UsageError(f"view {write.view!r}: columns missing {lost}, not declared {more}")
    sizes = {name: len(values) for name, values in write.columns.items()}
    sizes["event_times_ms"] = len(write.event_times_ms)
    wrong = {name: size for name, size in sizes.items() if size != len(write.keys)}
    if wrong:
        raise UsageError(f"view {write.view!r}: {len(write.keys)} keys, but {wrong} values")


def _alternating(fields: Sequence[bytes], cells: Sequence[bytes]) -> list[bytes]:
    out = [b""] * (2 * len(fields))
    out[::2], out[1::2] = fields, cells
    return out
