"""Answers as they were logged, with what they were made from (`contracts.events.ServedRows`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.features import BY_NAME
from contracts.settings import Settings
from contracts.tables import LAKE_COLUMNS, STORED_ITEM_VIEWS, Lake, version_column
from monitoring.lake import lake_dataset

Floats = npt.NDArray[np.float32]
NO_ROW = -1
"""The version of a stored row where none was read."""
CHUNK = 500
"""Answers that are read and recomputed together."""
_SEED = "7"


@dataclass(frozen=True)
class Asked:
    """What an answer's rows share: see `contracts.tables.ASKED`."""

    index: str
    events: tuple[Mapping[str, Any], ...]
    context: Mapping[str, int]
    exclude: tuple[str, ...]
    candidates: int
    degraded: tuple[str, ...]
    visited: tuple[str, ...]
    visited_versions: Mapping[str, Sequence[int]]
    rules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Answer:
    """n items as they were served. columns: float32 [n] by feature, nan where there was no value;
    versions: by view that was read, int64 [n]."""

    request_id: str
    session_id: str
    time: int
    asked_at: int
    release: str
    session_version: int
    asked: Asked
    items: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    versions: Mapping[str, npt.NDArray[np.int64]]
    columns: Mapping[str, Floats]

    def rows(self, features: Sequence[str]) -> Floats:
        """[n, features], in their order; a column that was not logged is nan."""
        missing = np.full(len(self.items), np.nan, dtype=np.float32)
        return np.column_stack([self.columns.get(name, missing) for name in features])


@dataclass(frozen=True)
class Selection:
    """Which answers are looked at. Times in milliseconds; `sample`: so many answers at most,
    drawn by hash; 0: all. `request`: only this one. `told`: when the tables were made that answers
    are compared with; what was asked later is not in them."""

    since: int = 0
    until: int = 1 << 62
    sample: int = 0
    request: str = ""
    told: int = 1 << 62


@dataclass
class ServedAnswers:
    """The answers of a selection, read in chunks, in order of time.

    answers: how many there are in all. incomparable: answers that cannot be recomputed, by the
    reason why.
    """

    settings: Settings
    selection: Selection
    answers: int = 0
    incomparable: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[list[Answer]]:
        import duckdb

        with duckdb.connect() as database:
            features = self._open(database)
            for begin in range(0, self._choose(database), CHUNK):
                frame = database.execute(_CHUNK, [begin, begin + CHUNK]).df()
                yield list(_answers(frame, features))

    def _open(self, database: Any) -> list[str]:
        """The tables `served` and `impressions`, as DuckDB sees them; the feature columns."""
        base = LAKE_COLUMNS[Lake.served]
        files = lake_dataset(self.settings, Lake.served, _schema(base)).get_fragments()
        names = dict.fromkeys(name for file in files for name in file.physical_schema.names)
        features = [name for name in names if name not in base and name in BY_NAME]
        schema = _schema({**base, **dict.fromkeys(features, "float")})
        database.register("served", lake_dataset(self.settings, Lake.served, schema))
        listed = _schema({n: LAKE_COLUMNS[Lake.impressions][n] for n in _IMPRESSION})
        database.register("impressions", lake_dataset(self.settings, Lake.impressions, listed))
        return features

    def _choose(self, database: Any) -> int:
        """Number the answers that are looked at, from 0; how many they are."""
        chosen = self.selection
        period = [chosen.since, chosen.until, chosen.request, chosen.request]
        database.execute(_ANSWERS, period)
        database.execute(f"SET VARIABLE told = {int(chosen.told)}::BIGINT")
        (self.answers,) = database.execute("SELECT count(*) FROM answers").fetchone()
        for why, query in _INCOMPARABLE.items():
            (count,) = database.execute(query, period if "?" in query else None).fetchone()
            if count:
                self.incomparable[why] = count
        database.execute(_NUMBERED, [_SEED, chosen.sample or 1 << 62])
        (count,) = database.execute("SELECT count(*) FROM chosen").fetchone()
        return int(count)


_IMPRESSION = ("request_id", "time", "degraded")
_WHEN = "time >= ? AND time < ? AND (request_id = ? OR ? = '')"
_ANSWERS = f"""CREATE TEMP TABLE answers AS
    SELECT request_id, min(time) AS time, min(asked_at) AS asked_at, bool_and(asked IS NOT NULL) AS whole,
           count(DISTINCT place) = max(place) AS every_place
    FROM served WHERE {_WHEN} GROUP BY request_id"""  # noqa: S608  # no text from outside
_UNLOGGED = f"""SELECT count(DISTINCT request_id) FROM impressions ANTI JOIN answers
    USING (request_id) WHERE {_WHEN} AND"""  # noqa: S608
_INCOMPARABLE = {
    "logged without what they were made from": "SELECT count(*) FROM answers WHERE NOT whole",
    "not all of their rows are in the lake": "SELECT count(*) FROM answers WHERE whole AND NOT every_place",
    "asked after the offline tables were made": "SELECT count(*) FROM answers WHERE whole AND every_place AND asked_at >= getvariable('told')",
    "not ranked (the ranker did not answer)": f"{_UNLOGGED} list_contains(degraded, 'ranking')",
    "no rows logged (not sampled, or dropped)": f"{_UNLOGGED} NOT list_contains(degraded, 'ranking')",
}
_NUMBERED = """CREATE TEMP TABLE chosen AS
    SELECT request_id, row_number() OVER (ORDER BY time, request_id) - 1 AS number FROM (
        SELECT * FROM answers
        WHERE whole AND every_place AND asked_at < getvariable('told')
        ORDER BY hash(request_id || ?), request_id LIMIT ?)"""
_CHUNK = """SELECT DISTINCT ON (number, place) chosen.number, served.*
    FROM served JOIN chosen USING (request_id)
    WHERE number >= ? AND number < ? ORDER BY number, place"""


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow as pa

    return pa.schema([(name, _arrow(kind)) for name, kind in columns.items()])


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[5:-1]))
    return pa.type_for_alias(kind)


def _answers(frame: Any, features: Sequence[str]) -> Iterator[Answer]:
    """frame: rows of answers, by number and place."""
    ends = np.flatnonzero(np.diff(frame["number"], append=-1)) + 1
    columns = {name: frame[name].to_numpy(np.float32, na_value=np.nan) for name in features}
    versions = {view: frame[version_column(view)].to_numpy() for view in STORED_ITEM_VIEWS}
    shared = frame.iloc[ends - 1][list(_SHARED)].to_dict("records")
    items, scores = frame["item_id"].to_numpy(), frame["score"].to_numpy(np.float64)
    start = 0
    for end, fields in zip(ends.tolist(), shared, strict=True):
        cut = slice(start, end)
        yield Answer(
            **{name: kind(fields[name]) for name, kind in _SHARED.items() if name != "asked"},
            asked=asked_of(fields["asked"]),
            items=tuple(items[cut]),
            scores=scores[cut],
            versions={
                view: values[cut].astype(np.int64)
                for view, values in versions.items()
                if not np.isnan(values[cut]).any()
            },
            columns={name: values[cut] for name, values in columns.items()},
        )
        start = end


_SHARED: dict[str, Callable[[Any], Any]] = {
    "request_id": str, "session_id": str, "time": int, "asked_at": int, "release": str,
    "session_version": int, "asked": str,
}  # fmt: skip


def asked_of(text: str) -> Asked:
    """From the lake's column `asked`."""
    fields = json.loads(text)
    names = ("events", "exclude", "rules", "degraded", "visited")
    lists = {name: tuple(fields.get(name, ())) for name in names}
    return Asked(**{**fields, **lists})
