"""The online store as the consumer's `ports.States`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.features import of_view
from contracts.session import SessionState, session_features, visit

VIEWS = ("session", "context")
Columns = dict[str, list[Any]]


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


def states_of(columns: Mapping[str, Sequence[Any]], count: int) -> list[SessionState]:
    """States from the `event_*` columns of the view `session`; a missing row is an empty state."""
    names = [name for name in columns if name.startswith("event_")]
    return [_state({name: columns[name][row] for name in names}) for row in range(count)]


def _state(lists: dict[str, Any]) -> SessionState:
    if any(values is None for values in lists.values()):
        return SessionState()
    return SessionState.from_columns(lists)
