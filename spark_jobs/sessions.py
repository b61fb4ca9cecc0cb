"""The session table: state and features of every session after every moment at which it changed.

The values come from `contracts.session` alone, so a row equals what the event consumer pushed.
Events of a session that bear the same time make one row, the state after all of them: no question
"as of that time" can fall between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame

from contracts.session import session_features, visit
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.walk import Moment, Row, over_sessions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def sessions(events_clean: DataFrame) -> DataFrame:
    """`Offline.session`, a row for each session and time at which it had an event."""
    return over_sessions(events_clean, session_rows, Offline.session)


def session_rows(moments: Iterator[Moment]) -> Iterable[Row]:
    """Rows of `Offline.session` for the moments of one session."""
    for moment in moments:
        at = _EPOCH + timedelta(milliseconds=moment.time)
        yield {
            "session_id": moment.session,
            EVENT_TIMESTAMP: at,
            # known at once: a question that follows a click is about a visit that holds it, be it
            # by the stream or by the request's own events; with a delay, a training set would
            # join every query with the state before its last click
            CREATED_TIMESTAMP: at,
            **moment.state.columns(),
            **session_features(visit(moment.state, moment.time)),
        }
