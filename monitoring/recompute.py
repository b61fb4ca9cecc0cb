"""The feature rows of answers, computed anew by the offline path.

Nothing here is read from what serving reads: the session's state comes from the offline table of
its versions, item rows from Feast's historical retrieval as of the publication that was visible,
candidates from the index that proposed, and `contracts.columns.request_columns` makes the columns
of them. What an answer logged is used only to know what was asked and which rows were read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import SIGNALS, SOURCES, CandidateSet, unknown_signals
from contracts.columns import items_to_read, request_columns
from contracts.errors import NextclickError
from contracts.events import Event
from contracts.features import BY_NAME, Group, matrix, of_view
from contracts.pair import ACTIVITY, CATALOGUE, KNOWN
from contracts.session import SessionEvent, SessionState, fold, items_of, visit
from contracts.tables import EVENT_TIMESTAMP, STORED_ITEM_VIEWS
from monitoring.served import NO_ROW, Answer, Floats
from monitoring.stored import (
    FeatureReader,
    ItemRead,
    ItemTable,
    Published,
    Reason,
    SessionRead,
    SessionTable,
    published,
    session_read,
)

Columns = dict[str, npt.NDArray[Any]]
OF_CANDIDATES = frozenset(
    [f"{source}_{kind}" for source in SOURCES for kind in ("score", "rank")]
    + [*SIGNALS, "sources_found", "best_rank"]
)
"""Pair features that say where a candidate came from."""
MADE_OF = {
    BY_NAME[CATALOGUE[0]].view: frozenset(
        ("same_category", "category_share", "same_brand", "brand_share", "price_to_last", "price_to_mean")
    ),
    BY_NAME[ACTIVITY[0]].view: frozenset(("last_views_7d", "views_to_last")),
}  # fmt: skip
"""By item view: pair features that compare what it says of items."""


@dataclass(frozen=True)
class Visit:
    """What an answer knew of its visitor, by the offline path."""

    read: SessionRead
    moment: int
    events: tuple[SessionEvent, ...]
    visited: list[str]


@dataclass(frozen=True)
class Recomputed:
    """Rows [n, features] of an answer, what is known of why they may differ, and the features
    that cannot be recomputed, with the reason why not."""

    rows: Floats
    visit: Visit
    reads: Mapping[str, Mapping[str, ItemRead]]  # by view and item
    skipped: Mapping[str, str]

    def reason(self, feature: str, item: str) -> Reason:
        """Why the item's value may be another than the served one."""
        known = BY_NAME[feature]
        found: list[Reason | None] = []
        if known.group is Group.pair or known.view in ("session", "context"):
            found.append(self.visit.read.reason)
        if known.view in self.reads:
            found.append(self.reads[known.view][item].reason)
        for view, names in MADE_OF.items():
            if feature in names and view in self.reads:
                of = self.reads[view]
                found += [of[name].reason for name in dict.fromkeys((item, *self.visit.visited))]
        return next((reason for reason in found if reason is not None), Reason.code)


@dataclass
class Offline:
    """What answers are recomputed from. lag_ms: what became known or visible so shortly before a
    question may or may not have been read."""

    sessions: SessionTable
    items: Mapping[str, ItemTable]
    read: FeatureReader
    indexes: Path
    lag_ms: int
    _indexes: dict[str, Any] = field(default_factory=dict)

    def recompute(
        self, answers: Sequence[Answer], features: Mapping[str, Sequence[str]]
    ) -> list[Recomputed]:
        """The rows of each answer. features: the ranker's columns by release, in order."""
        visits = self._visits(answers)
        subsets = [
            self._candidates(answer, seen) for answer, seen in zip(answers, visits, strict=True)
        ]
        wanted = [
            list(items_to_read(seen.visited, subset or _unknown(answer)))
            for answer, seen, subset in zip(answers, visits, subsets, strict=True)
        ]
        online = [
            {
                view: published(table.records, answer.asked_at, self.lag_ms)
                for view, table in self.items.items()
            }
            for answer in answers
        ]
        reads = self._item_reads(answers, wanted, online)
        values = _Values.of(reads, self.read)
        return [
            self._one(answer, features[answer.release], seen, subset, read, values)
            for answer, seen, subset, read in zip(answers, visits, subsets, reads, strict=True)
        ]

    # --- the parts of an answer ----------------------------------------------------------------

    def _visits(self, answers: Sequence[Answer]) -> list[Visit]:
        histories = self.sessions.histories(a.session_id for a in answers if a.session_id)
        reads, moments = [], []
        for answer in answers:
            moment = max([answer.asked_at, *(int(e["time"]) for e in answer.asked.events)])
            moments.append(moment)
            if "session" in answer.asked.degraded or not answer.session_id:
                reads.append(SessionRead(NO_ROW, None))
                continue
            history = histories.get(answer.session_id, [])
            reads.append(
                session_read(history, answer.session_version, answer.asked_at, moment, self.lag_ms)
            )
        states = self.sessions.states(
            (answer.session_id, read.version)
            for answer, read in zip(answers, reads, strict=True)
            if read.version != NO_ROW
        )
        return [
            _visit(answer, read, states.get((answer.session_id, read.version)))
            for answer, read in zip(answers, reads, strict=True)
        ]

    def _candidates(self, answer: Answer, seen: Visit) -> CandidateSet | None:
        """The served items as the index proposes them; None where it is gone."""
        index = self._index(answer.asked.index)
        if index is None:
            return None
        asked = answer.asked
        if "candidates" in asked.degraded:
            found = index.candidates([], asked.candidates, ())
        else:
            found = index.candidates(seen.visited, asked.candidates, asked.exclude)
        rows = {item: row for row, item in enumerate(found.items)}
        return _subset(found, [rows.get(item) for item in answer.items], answer.items)

    def _index(self, version: str) -> Any:
        from candidate_service.index import CandidateIndex

        if version not in self._indexes:
            try:
                self._indexes[version] = CandidateIndex.load(self.indexes / version)
            except (NextclickError, OSError):
                self._indexes[version] = None
        return self._indexes[version]

    def _item_reads(
        self,
        answers: Sequence[Answer],
        wanted: Sequence[list[str]],
        online: Sequence[Mapping[str, Published]],
    ) -> list[dict[str, dict[str, ItemRead]]]:
        """Of each answer, by view and item: the row that should have been read."""
        for table in self.items.values():
            table.load(item for items in wanted for item in items)
        return [
            {
                view: {
                    item: table.read(item, logged.get(item), answer.time, visible[view])
                    for item in items
                }
                for view, table in self.items.items()
                if (logged := _logged(answer, view)) is not None
            }
            for answer, items, visible in zip(answers, wanted, online, strict=True)
        ]

    def _one(
        self,
        answer: Answer,
        features: Sequence[str],
        seen: Visit,
        subset: CandidateSet | None,
        reads: Mapping[str, Mapping[str, ItemRead]],
        values: _Values,
    ) -> Recomputed:
        candidates = subset or _unknown(answer)
        items = list(items_to_read(seen.visited, candidates))
        names = [name for name in features if BY_NAME[name].group is Group.item]
        names = list(dict.fromkeys([*KNOWN, *names]))
        columns = request_columns(
            seen.events, seen.moment, answer.asked.context, candidates,
            {name: values.column(reads, name, items) for name in names},
        )  # fmt: skip
        skipped = self._skipped(answer, features, subset is None)
        return Recomputed(matrix(columns, len(answer.items), features), seen, reads, skipped)

    def _skipped(self, answer: Answer, features: Sequence[str], no_index: bool) -> dict[str, str]:
        skipped: dict[str, str] = {}
        if no_index:
            why = f"the candidate index {answer.asked.index} is gone"
            skipped |= {name: why for name in features if name in OF_CANDIDATES}
        for view, table in self.items.items():
            if not table.records and "features" not in answer.asked.degraded:
                names = {feature.name for feature in of_view(view)}
                names |= MADE_OF.get(view, frozenset())
                why = f"no materialisation of {view} is on record"
                skipped |= {name: why for name in features if name in names}
        return skipped


def _visit(answer: Answer, read: SessionRead, state: SessionState | None) -> Visit:
    events = [Event.model_validate(fields) for fields in answer.asked.events]
    folded = fold(state or SessionState(), events)
    moment = max([answer.time, *(event.time for event in folded.events[-1:])])
    seen = visit(folded, moment)
    return Visit(read, moment, seen, items_of(seen))


def _logged(answer: Answer, view: str) -> dict[str, int] | None:
    """The version that was read of each item; None where the view was not read, or not answered."""
    if view not in answer.versions:
        return None
    visited = zip(answer.asked.visited, answer.asked.visited_versions.get(view, ()), strict=False)
    served = zip(answer.items, answer.versions[view].tolist(), strict=True)
    return {**dict(visited), **dict(served)}


def _subset(
    found: CandidateSet, rows: Sequence[int | None], items: tuple[str, ...]
) -> CandidateSet:
    """`items` as they were found; one that was not is of no source."""
    unknown = np.full((1, len(SOURCES)), np.nan, dtype=np.float32)
    place = [len(found) if row is None else row for row in rows]
    scores, ranks = (np.concatenate([of, unknown])[place] for of in (found.scores, found.ranks))
    signals = np.concatenate([found.signals, unknown_signals(1)])[place]
    return CandidateSet(items, scores, ranks, signals)


def _unknown(answer: Answer) -> CandidateSet:
    return _subset(CandidateSet.empty(), [None] * len(answer.items), answer.items)


@dataclass(frozen=True)
class _Values:
    """Values of the rows that should have been read, by historical retrieval.

    places: by view, the row in `columns` of an (item, moment).
    """

    columns: Mapping[str, npt.NDArray[Any]]
    places: Mapping[str, Mapping[tuple[str, int], int]]

    @classmethod
    def of(
        cls, reads: Sequence[Mapping[str, Mapping[str, ItemRead]]], read: FeatureReader
    ) -> _Values:
        columns: Columns = {}
        places: dict[str, dict[tuple[str, int], int]] = {}
        for view in STORED_ITEM_VIEWS:
            found = places[view] = {}
            for of_answer in reads:
                for item, each in of_answer.get(view, {}).items():
                    if each.moment is not None:
                        found.setdefault((item, each.moment), len(found))
            if found:
                columns |= _retrieved(view, list(found), read)
        return cls(columns, places)

    def column(
        self, reads: Mapping[str, Mapping[str, ItemRead]], name: str, items: Sequence[str]
    ) -> npt.NDArray[Any]:
        """The feature of the items, nan (0 for ids) where there should have been no row."""
        view = BY_NAME[name].view
        of_items = reads.get(view, {})
        values = self.columns.get(name)
        if values is None or not of_items:
            return np.full(len(items), np.nan, dtype=np.float32)
        none = (
            np.zeros(1, values.dtype)
            if values.dtype.kind in "iu"
            else np.full(1, np.nan, np.float32)
        )
        place = self.places[view]
        rows = [
            len(values) if (at := of_items[item].moment) is None else place[item, at]
            for item in items
        ]
        return np.concatenate([values, none])[rows]


def _retrieved(view: str, pairs: Sequence[tuple[str, int]], read: FeatureReader) -> Columns:
    import pandas as pd

    moments = pd.to_datetime(np.array([at for _, at in pairs], np.int64), unit="ms", utc=True)
    frame = read(
        pd.DataFrame({"item_id": [item for item, _ in pairs], EVENT_TIMESTAMP: moments}), [view]
    )
    return {feature.name: frame[feature.name].to_numpy() for feature in of_view(view)}
