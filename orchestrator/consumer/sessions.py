"""Folding events into the session states of the online store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from contracts.events import Event
from contracts.session import SessionEvent, SessionState, fold
from orchestrator.consumer.ports import States

MAX_CACHED_EVENTS = 200_000
"""Session events that are remembered in this process, some 300 bytes each: at most 60 MB."""


class Sessions:
    """Reads and folds states, with the newest ones kept in memory.

    The memory is true as long as this process is the only one that writes these sessions, writes
    whatever `fold` gave, and the store forgets nothing: whoever takes over partitions, gives a
    write up or sees the store in another life, calls `forget` first.
    """

    def __init__(self, states: States, max_cached_events: int = MAX_CACHED_EVENTS) -> None:
        self._states = states
        self._max = max_cached_events
        self._recent: OrderedDict[str, SessionState] = OrderedDict()
        self._cached_events = 0
        self._newest: dict[str, SessionState] = {}  # may be on their way into the store

    def fold(self, events: Iterable[tuple[Event, int]]) -> dict[str, SessionState]:
        """Fold events, each with its offset, into the states of their sessions. Returns the states
        to be written; by the next call but one they have to be in the store.

        Folding the same events again changes nothing.
        """
        by_session: dict[str, list[SessionEvent]] = {}
        for event, offset in events:
            by_session.setdefault(event.session_id, []).append(SessionEvent.of(event, offset))
        before = self._read(list(by_session))
        after = {session: fold(before[session], new) for session, new in by_session.items()}
        changed = {name: state for name, state in after.items() if self._is_news(name, state)}
        self._remember(changed)
        self._newest = changed
        return changed

    def _is_news(self, session: str, state: SessionState) -> bool:
        """A session of heartbeats only has no state to write. One that was read from the store may
        have been written in part, before a crash."""
        return bool(state.events) and state != self._recent.get(session)

    def forget(self) -> None:
        self._recent.clear()
        self._newest = {}
        self._cached_events = 0

    def _read(self, sessions: list[str]) -> dict[str, SessionState]:
        known = {
            name: state
            for name in sessions
            if (state := self._recent.get(name) or self._newest.get(name)) is not None
        }
        unknown = [name for name in sessions if name not in known]
        if unknown:
            known.update(zip(unknown, self._states.read(unknown), strict=True))
        return known

    def _remember(self, states: dict[str, SessionState]) -> None:
        recent = self._recent
        for session, state in states.items():
            old = recent.get(session)
            if old is not None:
                self._cached_events -= len(old.events)
                recent.move_to_end(session)
            recent[session] = state
            self._cached_events += len(state.events)
        while self._cached_events > self._max:
            _, oldest = recent.popitem(last=False)
            self._cached_events -= len(oldest.events)
