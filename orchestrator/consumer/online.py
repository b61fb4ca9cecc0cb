"""The online store as the consumer's `ports.States`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from contracts.features import of_view
from contracts.session import SessionEvent, SessionState, session_features, visit
from contracts.settings import Settings
from feast_engine.config import online_config
from feast_engine.connection import SyncClient, connect, unreachable
from feast_engine.reader import ReadRequest, SyncReader
from feast_engine.writer import OnlineWriter, ViewWrite

VIEWS = ("session", "context")
Columns = dict[str, list[Any]]
_STATE = tuple(f"event_{name}" for name in SessionEvent._fields)


def rows(states: Mapping[str, SessionState]) -> tuple[list[str], list[int], dict[str, Columns]]:
    """Keys, event times (milliseconds) and, by view, the columns of non-empty states.

    A row holds as of the session's newest event: features are those of the visit at that time.
    """
    sessions = list(states)
    times = [states[session].events[-1].time for session in sessions]
    values = [
        session_features(visit(states[session], time))
        for session, time in zip(sessions, times, strict=True)
    ]
    lists = [states[session].columns() for session in sessions]
    every = [{**state, **features} for state, features in zip(lists, values, strict=True)]
    columns = {
        view: {f.name: [row[f.name] for row in every] for f in of_view(view)} for view in VIEWS
    }
    return sessions, times, columns


class FeastStates:
    """Implements `ports.States` through the feature engine. Connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = online_config(settings)
        self._parts: tuple[SyncClient, SyncReader, OnlineWriter] | None = None

    def read(self, sessions: Sequence[str]) -> list[SessionState]:
        _, reader, _ = self._connected()
        # as of 1970 nothing is too old: the state holds former visits too
        [found] = reader.read([ReadRequest("session", sessions, _STATE)], moment_ms=0)
        return [
            SessionState.from_columns({name: found.columns[name][row] for name in _STATE})
            for row in range(len(sessions))
        ]

    def write(self, states: Mapping[str, SessionState]) -> None:
        sessions, times, columns = rows(states)
        _, _, writer = self._connected()
        writer.write_many([ViewWrite(view, sessions, times, columns[view]) for view in VIEWS])

    def ping(self) -> None:
        client, _, _ = self._connected()
        try:
            client.ping()
        except (redis.RedisError, OSError) as error:
            raise unreachable(self._config, error) from error

    def _connected(self) -> tuple[SyncClient, SyncReader, OnlineWriter]:
        if self._parts is None:
            try:
                client = connect(self._settings)
            except (redis.RedisError, OSError) as error:  # a cluster is asked for its layout
                raise unreachable(self._config, error) from error
            reader = SyncReader(self._settings, client)
            self._parts = client, reader, OnlineWriter(self._settings, client)
        return self._parts
