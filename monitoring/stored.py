"""Which stored rows should have been online when an answer was made: from the offline tables, and
from the record of what was made visible when (`feast_engine.publications`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.features import VIEWS, of_view
from contracts.session import SessionEvent, SessionState
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, Offline
from feast_engine.expiry import FOR_SALE, GONE
from feast_engine.publications import Publication
from monitoring.lake import dataset
from monitoring.served import NO_ROW

if TYPE_CHECKING:
    import pandas as pd

READ_MS = 5_000
"""An answer reads within this time after it was asked: what begins to be visible meanwhile may
have been read."""
FeatureReader = Callable[["pd.DataFrame", Sequence[str]], "pd.DataFrame"]
"""Point-in-time retrieval: an entity frame (`item_id`, `event_timestamp`) and views in, their
features out, one row an entity row, in its order (`feast_engine.historical.stored_features`)."""


class Reason(StrEnum):
    """Why a served value is another than the recomputed one."""

    age = "age"  # a row was read that was too old by then
    late = "late"  # what should have been read was known and not yet online, or too early
    missing = "missing"  # a row was read that is not offline, or none where there was one
    stale = "stale"  # an older row was read than the one that was made visible last
    code = "code"  # every version agrees: the values themselves differ


def max_age_ms(view: str) -> int | None:
    age = VIEWS[view].max_age
    return None if age is None else age // timedelta(milliseconds=1)


def too_old(view: str, version: int, moment: int) -> bool:
    """Whether a row that holds from `version` on (milliseconds) is over its age at the moment."""
    age = max_age_ms(view)
    return age is not None and moment - version > age


# --- sessions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateVersion:
    """A row of `Offline.session`, but for its values. Times in milliseconds."""

    version: int
    event_time: int
    known: int


@dataclass(frozen=True)
class SessionRead:
    """What a session read should have given: the version of the state, `NO_ROW` for none; why it
    is another than the one that was read; how long a newer one had been known, milliseconds."""

    version: int
    reason: Reason | None
    behind_ms: int = 0


def session_read(
    history: Sequence[StateVersion], read: int, asked_at: int, moment: int, lag_ms: int
) -> SessionRead:
    """Judge the read of a session's state.

    history: all versions of the session, oldest first. read: the version that was logged.
    moment: as of which the age counts. lag_ms: what became known so shortly before the question
    may or may not have been online.
    """
    due = [each for each in history if each.known <= asked_at - lag_ms]
    expected = due[-1].version if due and not _aged(due[-1], moment) else NO_ROW
    there = next((each for each in history if each.version == read), None)
    newer = [each.known for each in history if read < each.version and each.known <= asked_at]
    behind = asked_at - min(newer) if newer else 0
    if read != NO_ROW and there is None:
        return SessionRead(expected, Reason.missing, behind)
    if there is not None and _aged(there, moment):
        return SessionRead(expected, Reason.age, behind)
    if expected != NO_ROW and read < expected:
        reason = Reason.missing if read == NO_ROW else Reason.late
        return SessionRead(expected, reason, behind)
    return SessionRead(read, None, behind)


def _aged(row: StateVersion, moment: int) -> bool:
    return too_old(Offline.session, row.event_time, moment)


class SessionTable:
    """`Offline.session`, the history of every session's state."""

    def __init__(self, offline: str, database: Any) -> None:
        """database: a connection of DuckDB."""
        self._address, self._database = f"{offline.rstrip('/')}/{Offline.session}", database

    def histories(self, sessions: Iterable[str]) -> dict[str, list[StateVersion]]:
        """The versions of each session, oldest first."""
        found: dict[str, list[StateVersion]] = {}
        rows = self._query(_HISTORIES, _KEYS, {"session_id": list(dict.fromkeys(sessions))})
        for session, *version in rows:
            found.setdefault(session, []).append(StateVersion(*version))
        return found

    def states(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], SessionState]:
        """The state of each (session, version) that there is."""
        pairs = list(dict.fromkeys(wanted))
        asked: dict[str, list[Any]] = {
            "session_id": [session for session, _ in pairs],
            "session_version": [version for _, version in pairs],
        }
        kinds = {feature.name: str(feature.dtype) for feature in of_view("session")}
        columns = {"session_id": "string", **{name: kinds[name] for name in _STATE_COLUMNS}}
        rows = self._query(_STATES, columns, asked)
        return {
            (row[0], row[1]): SessionState.from_columns(
                dict(zip(_STATE_COLUMNS[1:], row[2:], strict=True))
            )
            for row in rows
        }

    def _query(
        self, query: str, columns: Mapping[str, str], asked: Mapping[str, list[Any]]
    ) -> list[tuple[Any, ...]]:
        import pyarrow as pa

        wanted = {"session_id": pa.string(), "session_version": pa.int64()}
        table = pa.table({name: pa.array(v, wanted[name]) for name, v in asked.items()})
        self._database.register("asked", table)
        self._database.register("history", dataset(self._address, _schema(columns)))
        found: list[tuple[Any, ...]] = self._database.execute(query).fetchall()
        return found


_STATE_COLUMNS = ("session_version", *(f"event_{name}" for name in SessionEvent._fields))
_KEYS = {
    "session_id": "string",
    "session_version": "int64",
    EVENT_TIMESTAMP: "timestamp",
    CREATED_TIMESTAMP: "timestamp",
}
_MS = "CAST(epoch_us({}) // 1000 AS BIGINT)"
_HISTORIES = f"""SELECT session_id, session_version, {_MS.format(EVENT_TIMESTAMP)},
        {_MS.format(CREATED_TIMESTAMP)}
    FROM history SEMI JOIN asked USING (session_id) ORDER BY session_id, session_version"""  # noqa: S608
_STATES = f"""SELECT session_id, {", ".join(_STATE_COLUMNS)}
    FROM history SEMI JOIN asked USING (session_id, session_version)"""  # noqa: S608


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow as pa

    def kind(name: str) -> Any:
        if name == "timestamp":
            return pa.timestamp("us", tz="UTC")
        return pa.list_(kind(name[5:-1])) if name.startswith("list<") else pa.type_for_alias(name)

    return pa.schema([(name, kind(of)) for name, of in columns.items()])


# --- items -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """As of which moments (milliseconds) the rows of a view were online when an answer was made.

    certain: of what was visible for sure; None: nothing was. possible: of what was on its way,
    any row of which may have been visible or not.
    """

    certain: int | None
    possible: tuple[int, ...] = ()

    @property
    def moments(self) -> tuple[int, ...]:
        return self.possible if self.certain is None else (self.certain, *self.possible)


def published(records: Iterable[Publication], asked_at: int, lag_ms: int) -> Published:
    """What the records of a view's materialisations say of a moment.

    A row never replaces a newer one, so of all that are through the furthest counts. One that
    has no end, because it is at work or was killed, counts as possible from its start on.
    """
    records = list(records)
    through = [
        each.until_ms
        for each in records
        if each.finished_ms is not None and each.finished_ms <= asked_at - lag_ms
    ]
    certain = max(through, default=None)
    possible = {
        each.until_ms
        for each in records
        if each.started_ms <= asked_at + READ_MS and (certain is None or each.until_ms > certain)
    }
    return Published(certain, tuple(sorted(possible)))


@dataclass(frozen=True)
class ItemRead:
    """What an item read should have given: the row as of `moment` (None: no row), which holds from
    `version` on; why that is another than the one that was read."""

    version: int
    moment: int | None
    reason: Reason | None


class _Times(NamedTuple):
    """Of an item's rows: from when each holds, since when it is known, whether it can be bought."""

    event: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    for_sale: npt.NDArray[np.bool_]


@dataclass
class ItemTable:
    """A stored item view: its rows' times, and which of them was online.

    database: a connection of DuckDB.
    """

    offline: str
    database: Any
    view: str
    records: Sequence[Publication]
    _rows: dict[str, _Times] = field(default_factory=dict)

    def load(self, items: Iterable[str]) -> None:
        """Read the times of these items' rows, where they were not read before."""
        import pyarrow as pa

        new = [item for item in dict.fromkeys(items) if item not in self._rows]
        if not new:
            return
        address = f"{self.offline.rstrip('/')}/{self.view}"
        columns = {
            "item_id": "string",
            EVENT_TIMESTAMP: "timestamp",
            CREATED_TIMESTAMP: "timestamp",
        }
        tells = any(feature.name == FOR_SALE for feature in of_view(self.view))
        columns |= {FOR_SALE: "int64"} if tells else {}
        none = np.empty(0, dtype=np.int64)
        self._rows |= dict.fromkeys(new, _Times(none, none, none.astype(bool)))
        self.database.register("asked", pa.table({"item_id": pa.array(new, pa.string())}))
        self.database.register("history", dataset(address, _schema(columns)))
        query = _TIMES.format(FOR_SALE if tells else "1")
        for item, times, known, sale in self.database.execute(query).fetchall():
            self._rows[item] = _Times(
                np.array(times, np.int64), np.array(known, np.int64), np.array(sale, np.bool_)
            )

    def version(self, item: str, moment: int) -> int:
        """Event time of the newest row that counts as of the moment; `NO_ROW` for none."""
        rows = self._rows[item]
        counts = rows.event <= moment
        if VIEWS[self.view].as_known:
            counts &= rows.known <= moment
        return int(rows.event[counts].max(initial=NO_ROW))

    def read(self, item: str, logged: int | None, time: int, online: Published) -> ItemRead:
        """Judge the read of an item's row. logged: the version that was read; None: not told, as
        when another item was read in its place. time: as of which the age counts."""
        expected = [(self._young(item, at, time), at) for at in online.moments]
        for version, at in expected:
            if version == logged:
                return ItemRead(version, None if version == NO_ROW else at, None)
            if logged == NO_ROW and self._gone(item, version, at):
                return ItemRead(NO_ROW, None, None)
        if online.certain is None and logged in (NO_ROW, None):
            return ItemRead(NO_ROW, None, None)
        version, at = expected[0] if expected else (NO_ROW, online.certain or 0)
        reason = None if logged is None else self._reason(item, logged, version, time)
        return ItemRead(version, None if version == NO_ROW else at, reason)

    def _gone(self, item: str, version: int, moment: int) -> bool:
        """Whether the row tells that the item was not for sale for so long that nobody renews it
        online (`feast_engine.expiry`)."""
        rows = self._rows[item]
        sold_out = not rows.for_sale[rows.event == version].all()
        return sold_out and version < moment - GONE // timedelta(milliseconds=1)

    def _young(self, item: str, moment: int, time: int) -> int:
        version = self.version(item, moment)
        return NO_ROW if version == NO_ROW or too_old(self.view, version, time) else version

    def _reason(self, item: str, logged: int, expected: int, time: int) -> Reason:
        if logged == NO_ROW or logged not in self._rows[item].event:
            return Reason.missing
        if too_old(self.view, logged, time):
            return Reason.age
        return Reason.stale if logged < expected else Reason.late


_TIMES = f"""SELECT item_id, list({_MS.format(EVENT_TIMESTAMP)}),
        list(coalesce({_MS.format(CREATED_TIMESTAMP)}, {1 << 62})), list(coalesce({{}}, 1) <> 0)
    FROM history SEMI JOIN asked USING (item_id) GROUP BY item_id"""  # noqa: S608
