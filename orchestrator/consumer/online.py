"""The online store as the consumer's `ports.States`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from contracts.features import of_view
from contracts.session import STATE, SessionState, session_features, visit
from contracts.settings import Settings
from contracts.tables import EVENT_TIMESTAMP
from feast_engine.config import online_config
from feast_engine.connection import SECONDS, SyncClient, connect, unreachable
from feast_engine.layout import VERSION
from feast_engine.reader import ReadRequest, SyncReader
from feast_engine.writer import OnlineWriter, ViewWrite
from orchestrator.consumer import durability

_log = logging.getLogger(__name__)
VIEWS = ("session", "context")
MANY = 256
"""So many states cost less as tables: each a third, but a table some milliseconds."""
Columns = dict[str, list[Any]]
_NAMES = {view: tuple(feature.name for feature in of_view(view)) for view in VIEWS}


def rows(states: Mapping[str, SessionState]) -> tuple[list[str], list[int], dict[str, Columns]]:
    """Keys, event times (milliseconds) and, by view, the columns of non-empty states.

    A row holds as of the session's newest event: features are those of the visit at that time.
    """
    times = [state.events[-1].time for state in states.values()]
    every = [
        {**state.columns(), **session_features(visit(state, time))}
        for state, time in zip(states.values(), times, strict=True)
    ]
    columns = {
        view: {name: [row[name] for row in every] for name in names}
        for view, names in _NAMES.items()
    }
    return list(states), times, columns


def tables(states: Mapping[str, SessionState]) -> dict[str, pa.Table]:
    """The same as tables by view, for many states."""
    times = [state.events[-1].time for state in states.values()]
    shared = {
        "session_id": pa.array(states, pa.string()),
        EVENT_TIMESTAMP: pa.array(times, pa.timestamp("ms", "UTC")),
    }
    columns = {**_lists(states.values()), **_features(states.values(), times)}
    return {
        view: pa.table({**shared, **{name: columns[name] for name in (VERSION, *names)}})
        for view, names in _NAMES.items()
    }


def _lists(states: Collection[SessionState]) -> dict[str, Any]:
    """The columns `event_*`, of all states as one, and `session_version`."""
    sizes = np.fromiter((len(state.events) for state in states), np.int32, len(states))
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    flat = zip(*chain.from_iterable(state.events for state in states), strict=True)
    values = {
        name: pa.array(column, pa.string() if name == "event_item" else pa.int64())
        for name, column in zip(STATE, flat, strict=True)
    }
    versions = np.maximum.reduceat(values["event_offset"].to_numpy(), bounds[:-1])
    offsets = pa.array(bounds)
    lists = {name: pa.ListArray.from_arrays(offsets, column) for name, column in values.items()}
    return {VERSION: pa.array(versions), **lists}


def _features(states: Collection[SessionState], times: Sequence[int]) -> dict[str, Any]:
    every = [
        session_features(visit(state, time)) for state, time in zip(states, times, strict=True)
    ]
    table = np.array([list(row.values()) for row in every], np.float32)
    return {name: pa.array(table[:, place]) for place, name in enumerate(every[0])}


class FeastStates:
    """Implements `ports.States` through the feature engine. Connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = online_config(settings)
        self._parts: tuple[SyncClient, SyncReader, OnlineWriter] | None = None
        self._confirming: SyncClient | None = None  # of the background thread
        self._warned = False

    def read(self, sessions: Sequence[str]) -> list[SessionState]:
        _, reader, _ = self._connected()
        # as of 1970 nothing is too old: the state holds former visits too
        [found] = reader.read([ReadRequest("session", sessions, STATE)], moment_ms=0)
        return [
            SessionState.from_columns({name: found.columns[name][row] for name in STATE})
            for row in range(len(sessions))
        ]

    def write(self, states: Mapping[str, SessionState]) -> None:
        _, _, writer = self._connected()
        if len(states) >= MANY:
            writer.write_tables(tables(states))
            return
        sessions, times, columns = rows(states)
        versions = columns["session"][VERSION]
        writer.write_many(
            [ViewWrite(view, sessions, times, columns[view], versions) for view in VIEWS]
        )

    def life(self) -> str:
        client, _, _ = self._connected()
        with self._told():
            return durability.life(client)

    def confirm(self) -> str:
        if self._confirming is None:
            with self._told():
                self._confirming = connect(self._settings, durability.SECONDS + SECONDS)
        with self._told():
            if not durability.confirm(self._confirming, self._config.project):
                self._warn_once()
            return durability.life(self._confirming)

    def _warn_once(self) -> None:
        if not self._warned:
            _log.warning(
                "Redis keeps no append-only file or is older than 7.2: what it forgets when it"
                " restarts comes back only as far as the offsets were not committed"
            )
        self._warned = True

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise unreachable(self._config, error) from error

    def _connected(self) -> tuple[SyncClient, SyncReader, OnlineWriter]:
        if self._parts is None:
            with self._told():  # a cluster is asked for its layout
                client = connect(self._settings)
            reader = SyncReader(self._settings, client)
            self._parts = client, reader, OnlineWriter(self._settings, client)
        return self._parts
