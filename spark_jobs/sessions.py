"""The session table: the versions that the online row of every session ever had.

Message by message, in the order in which they became known, through `contracts.session` alone: a
row equals what the event consumer wrote online after that message. A late event makes a row with
the event time of the row before and a later created time; a repeat makes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.session import SessionState, fold, session_features, visit
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from spark_jobs.walk import Row, Told, over_sessions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER = ("known", "partition", "offset")


def sessions(messages: DataFrame) -> DataFrame:
    """`Offline.session` of `clean.messages`: a row for each message that changed its session."""
    known = messages.withColumn("received", F.col("known"))
    return over_sessions(known, _ORDER, session_rows, Offline.session)


def session_rows(session: str, told: Iterable[Told]) -> Iterator[Row]:
    """Rows of `Offline.session` of one session. told: in the order in which it became known."""
    for known, state in versions(told):
        newest = state.events[-1].time
        yield {
            "session_id": session,
            EVENT_TIMESTAMP: _EPOCH + timedelta(milliseconds=newest),
            CREATED_TIMESTAMP: _EPOCH + timedelta(milliseconds=known),
            **state.columns(),
            **session_features(visit(state, newest)),
        }


def versions(told: Iterable[Told]) -> Iterator[tuple[int, SessionState]]:
    """Each state of a session that differs from the one before, and since when it was known."""
    state = SessionState()
    for known, event, _ in told:
        before, state = state, fold(state, [event])
        if state != before:
            yield known, state
