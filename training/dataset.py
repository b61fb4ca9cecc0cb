"""Rows of the ranker: candidates as they would have been, with features as they were known.

A query's candidates come from an index of the window's cut-off, so nothing later than the cut-off
proposes an item; the features of each row are asked of Feast for the query's moment, through the
reader that the caller hands in; pair features and the order of columns are those of serving
(`contracts.pair`, `contracts.features.matrix`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from contracts.candidates import Candidates, CandidateSet
from contracts.features import BY_NAME, RANKED, matrix
from contracts.moment import moment_features
from contracts.pair import KNOWN, CatalogueColumns, pair_features
from contracts.rules import DEFAULT
from contracts.tables import EVENT_TIMESTAMP
from training.history import Query

if TYPE_CHECKING:
    import pandas as pd

NEGATIVES = 40
SESSION_VIEWS = ("session", "context")
ITEM_VIEWS = ("item_catalogue", "item_activity")

FeatureReader = Callable[["pd.DataFrame", Sequence[str]], "pd.DataFrame"]
"""Point-in-time retrieval: an entity frame (an id column and `event_timestamp`, UTC) and views in,
their features out, one row an entity row and in its order."""


class Listed(NamedTuple):
    """A query, its candidates, and the row of its label among them (None: not proposed)."""

    query: Query
    candidates: CandidateSet
    label: int | None


@dataclass(frozen=True)
class Rows:
    """n rows of q queries, a query's rows together, in the order of the merge.

    features: float32 [n, len(RANKED)]; label: 1 for the item that came next, int8 [n];
    query: index of the query, int32 [n]; sizes: rows a query, int64 [q]; items: item ids, [n];
    weight: of each query in learning, float32 [q].
    """

    features: npt.NDArray[np.float32]
    label: npt.NDArray[np.int8]
    query: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]
    items: npt.NDArray[np.object_]
    weight: npt.NDArray[np.float32]

    def part(self, start: int, stop: int) -> Rows:
        """The rows of the queries [start, stop)."""
        first, last = np.searchsorted(self.query, (start, stop))
        cut = slice(int(first), int(last))
        return Rows(
            self.features[cut], self.label[cut], self.query[cut] - np.int32(start),
            self.sizes[start:stop], self.items[cut], self.weight[start:stop],
        )  # fmt: skip


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all, one part after another."""
    begins = np.cumsum([0, *(len(rows.sizes) for rows in parts)])
    return Rows(
        np.concatenate([rows.features for rows in parts]),
        np.concatenate([rows.label for rows in parts]),
        np.concatenate([rows.query + begin for rows, begin in zip(parts, begins, strict=False)]).astype(np.int32),
        np.concatenate([rows.sizes for rows in parts]),
        np.concatenate([rows.items for rows in parts]),
        np.concatenate([rows.weight for rows in parts]),
    )  # fmt: skip


def propose(
    queries: Sequence[Query], index: Candidates, count: int, *, current: bool = False
) -> list[Listed]:
    """The candidates of each query, as the index would have served them.

    current: whether the item that the visitor looks at may be proposed, which serving never does;
    published evaluations count a second click on it as a next click.
    """
    return [
        _listed(
            query,
            index.candidates(
                query.visited, count, () if current else DEFAULT.left_out(query.visited, ())
            ),
        )
        for query in queries
    ]


def _listed(query: Query, candidates: CandidateSet) -> Listed:
    found = query.label in candidates.items
    return Listed(query, candidates, candidates.items.index(query.label) if found else None)


def with_negatives(listed: Sequence[Listed], seed: int, negatives: int = NEGATIVES) -> list[Listed]:
    """For learning: the label and `negatives` others, drawn evenly over the whole served list.

    Queries whose label was not proposed teach no order and are left out. Negatives mostly from
    the top of the list would teach an order that the rest of the list was never part of.
    """
    rng = np.random.default_rng(seed)
    return [
        _thinned(entry, entry.label, rng, negatives) for entry in listed if entry.label is not None
    ]


def _thinned(entry: Listed, label: int, rng: np.random.Generator, negatives: int) -> Listed:
    others = np.delete(np.arange(len(entry.candidates)), label)
    chosen = rng.choice(others, size=min(negatives, len(others)), replace=False)
    rows = np.sort(np.append(chosen, label)).astype(np.intp)
    return _listed(entry.query, entry.candidates.take(rows))


def rows_of(
    listed: Sequence[Listed], read: FeatureReader, weights: Mapping[str, float] | None = None
) -> Rows:
    """The features of every candidate of every query. weights: of queries by what became of their
    label (`Query.kind`), 1 where it is not named."""
    sizes = np.array([len(entry.candidates) for entry in listed], dtype=np.int64)
    query = np.repeat(np.arange(len(listed), dtype=np.int32), sizes)
    items = _flat([entry.candidates.items for entry in listed])
    label = np.zeros(len(items), dtype=np.int8)
    starts = np.cumsum(sizes) - sizes
    for start, entry in zip(starts, listed, strict=True):
        if entry.label is not None:
            label[start + entry.label] = 1
    known = _ItemValues.read(listed, read)
    columns = {name: known.columns[name][known.candidates] for name in _ranked(ITEM_VIEWS)}
    columns |= {name: values[query] for name, values in _query_columns(listed, read).items()}
    columns |= _pairs(listed, known)
    given = [(weights or {}).get(entry.query.kind, 1.0) for entry in listed]
    weight = np.array(given, dtype=np.float32)
    return Rows(matrix(columns, len(items)), label, query, sizes, items, weight)


def _ranked(views: Sequence[str]) -> list[str]:
    return [name for name in RANKED if BY_NAME[name].view in views]


def _flat(parts: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    return np.array([item for part in parts for item in part], dtype=object)


def _query_columns(
    listed: Sequence[Listed], read: FeatureReader
) -> dict[str, npt.NDArray[np.float32]]:
    """Session, context and moment features, [queries] each."""
    moments = [entry.query.moment for entry in listed]
    entities = _entities("session_id", [entry.query.session_id for entry in listed], moments)
    stored = read(entities, SESSION_VIEWS)
    columns = {name: stored[name].to_numpy(np.float32) for name in _ranked(SESSION_VIEWS)}
    at = [moment_features(moment) for moment in moments]
    return columns | {
        name: np.array([values[name] for values in at], np.float32) for name in _ranked(("moment",))
    }


@dataclass(frozen=True)
class _ItemValues:
    """Stored item features of distinct (item, moment) pairs, and where each row finds its own.

    columns: [pairs] each; candidates: pair of each candidate row [n]; visited: pair of each
    visited item [v], query after query.
    """

    columns: dict[str, npt.NDArray[np.float32]]
    catalogue: CatalogueColumns
    candidates: npt.NDArray[np.intp]
    visited: npt.NDArray[np.intp]

    @classmethod
    def read(cls, listed: Sequence[Listed], read: FeatureReader) -> _ItemValues:
        shown = [entry.candidates.items for entry in listed]
        before = [entry.query.visited for entry in listed]
        items = _flat([*shown, *before])
        moments = np.array([entry.query.moment for entry in listed] * 2, dtype=np.int64)
        moments = np.repeat(moments, [len(part) for part in (*shown, *before)])
        first, place = _distinct(items, moments)
        stored = read(_entities("item_id", items[first], moments[first]), ITEM_VIEWS)
        split = sum(len(part) for part in shown)
        columns = {name: stored[name].to_numpy(np.float32) for name in _ranked(ITEM_VIEWS)}
        catalogue = CatalogueColumns.of({name: stored[name].to_numpy() for name in KNOWN})
        return cls(columns, catalogue, place[:split], place[split:])


def _distinct(
    items: npt.NDArray[np.object_], moments: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First row of each distinct (item, moment), and each row's place among those."""
    codes: dict[str, int] = {}
    item = np.array([codes.setdefault(name, len(codes)) for name in items], dtype=np.int64)
    times, moment = np.unique(moments, return_inverse=True)
    _, first, place = np.unique(item * len(times) + moment, return_index=True, return_inverse=True)
    return first, place


def _entities(
    key: str, ids: Sequence[str] | npt.NDArray[np.object_], moments: npt.ArrayLike
) -> pd.DataFrame:
    import pandas as pd

    at = pd.to_datetime(np.asarray(moments, dtype=np.int64), unit="ms", utc=True)
    return pd.DataFrame({key: ids, EVENT_TIMESTAMP: at})


def _pairs(listed: Sequence[Listed], known: _ItemValues) -> dict[str, npt.NDArray[np.float32]]:
    """The session x item features, [n] each: one call of the shared function a query."""
    parts: list[dict[str, npt.NDArray[np.float32]]] = []
    shown = visited = 0
    for entry in listed:
        rows = known.candidates[shown : shown + len(entry.candidates)]
        past = known.visited[visited : visited + len(entry.query.visited)]
        shown, visited = shown + len(rows), visited + len(past)
        catalogue = known.catalogue
        parts.append(
            pair_features(
                entry.query.visited, catalogue.take(past), entry.candidates, catalogue.take(rows)
            )
        )
    names = _ranked(("session_item",))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
