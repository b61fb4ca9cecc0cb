"""Is what was served what the offline path computes? `nextclick parity`.

Every served feature row is computed again from the lake, as of its moment, and compared cell by
cell, bit by bit (nan equals nan); every served score is compared with LightGBM's own on the row
that was logged. What differs is named with its reason, and what cannot be compared is counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.features import BY_NAME
from contracts.parity import parity_path
from contracts.release import SCORE_TOLERANCE, Release
from contracts.settings import Settings
from contracts.tables import STORED_ITEM_VIEWS
from feast_engine import publications
from monitoring.models import Rankers
from monitoring.recompute import Offline, Recomputed
from monitoring.served import Answer, Floats, Selection, ServedAnswers
from monitoring.stored import FeatureReader, ItemTable, SessionTable

LAG_MS = 2_000
EXAMPLES = 3
"""Examples that are kept of each feature."""


Counts = dict[str, int]


def add(counts: Counts, key: str, number: int = 1) -> None:
    counts[str(key)] = counts.get(str(key), 0) + number


@dataclass
class FeatureParity:
    """One feature over all answers. `reasons`: differing cells by `monitoring.stored.Reason`."""

    cells: int = 0
    differing: int = 0
    reasons: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """A cell that differs; None where a side has no value. Times in ISO 8601, UTC."""

    request_id: str
    item_id: str
    feature: str
    served: float | None
    recomputed: float | None
    reason: str
    time: str


@dataclass
class ParityReport:
    """What `report.json` holds.

    answers_behind: answers made from a session state although a newer one was already known to
    Kafka, and most_behind_ms for how long at most: the price of a stream, no error up to `lag_ms`.
    not_compared: answers, and cells of features, by the reason why they could not be recomputed.
    """

    threshold: float
    lag_ms: int
    answers: int = 0
    rows: int = 0
    cells: int = 0
    differing: int = 0
    scores: int = 0
    scores_differing: int = 0
    largest_score_difference: float = 0.0
    features: dict[str, FeatureParity] = field(default_factory=dict)
    reasons: Counts = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    degraded: Counts = field(default_factory=dict)
    releases: Counts = field(default_factory=dict)
    answers_behind: int = 0
    most_behind_ms: int = 0
    answers_not_compared: Counts = field(default_factory=dict)
    cells_not_compared: Counts = field(default_factory=dict)
    scores_not_compared: Counts = field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    finished_ms: int = 0

    @property
    def verdict(self) -> str:
        if not self.cells:
            return "nothing to compare"
        return "differing" if self.exit_code else "equal"

    @property
    def exit_code(self) -> int:
        """0 within the threshold, 3 over it, 1 when nothing could be compared."""
        if not self.cells:
            return 1
        shares = self.differing / self.cells, self.scores_differing / max(self.scores, 1)
        return 3 if max(shares) > self.threshold else 0

    def as_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


def parity(
    settings: Settings,
    offline: str,
    read: FeatureReader,
    *,
    selection: Selection | None = None,
    lag_ms: int = LAG_MS,
    threshold: float = 0.0,
    examples: int = EXAMPLES,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> ParityReport:
    """Compare the served answers of a selection with what `offline`, a folder of offline tables
    made from the lake, says; `read` retrieves from the same tables."""
    import duckdb

    result = ParityReport(threshold, lag_ms)
    rankers = Rankers(settings)
    answers = ServedAnswers(settings, selection or Selection())
    tally = _Tally(result, examples)
    with duckdb.connect() as database:
        sources = _sources(settings, offline, database, read, lag_ms)
        for chunk in answers:
            _compare(chunk, sources, rankers, tally)
            report("compare", result.answers, answers.answers)
    result.answers_not_compared |= answers.incomparable
    result.features = {name: result.features[name] for name in sorted(result.features, key=_place)}
    result.finished_ms = time.time_ns() // 1_000_000
    return result


def _sources(
    settings: Settings, offline: str, database: Any, read: FeatureReader, lag_ms: int
) -> Offline:
    return Offline(
        sessions=SessionTable(offline, database),
        items={
            view: ItemTable(offline, database, view, publications.read(settings.offline, view))
            for view in STORED_ITEM_VIEWS
        },
        read=read,
        indexes=settings.indexes,
        lag_ms=lag_ms,
    )


def _place(feature: str) -> int:
    return list(BY_NAME).index(feature)


def _compare(chunk: Sequence[Answer], sources: Offline, rankers: Rankers, tally: _Tally) -> None:
    able: list[tuple[Answer, Release]] = []
    for answer in chunk:
        release = rankers.release(answer.release)
        why = _incomparable(release)
        if release is not None and why is None:
            able.append((answer, release))
        else:
            add(tally.result.answers_not_compared, str(why))
    features = {release.version: release.features for _, release in able}
    found = sources.recompute([answer for answer, _ in able], features)
    for (answer, release), recomputed in zip(able, found, strict=True):
        rows = answer.rows(release.features)
        tally.answer(answer, recomputed)
        tally.cells(answer, release.features, rows, recomputed)
        tally.scores(answer, rankers.scores(release, rows))


def _incomparable(release: Release | None) -> str | None:
    if release is None:
        return "their release was deleted"
    if unknown := [name for name in release.features if name not in BY_NAME]:
        return f"their release has features that are no longer declared: {', '.join(unknown)}"
    return None


@dataclass
class _Tally:
    """Adds answers to the report."""

    result: ParityReport
    examples: int

    def answer(self, answer: Answer, recomputed: Recomputed) -> None:
        result, behind = self.result, recomputed.visit.read.behind_ms
        result.answers += 1
        result.rows += len(answer.items)
        add(result.releases, answer.release)
        for part in answer.asked.degraded or ("nothing",):
            add(result.degraded, part)
        result.answers_behind += behind > 0
        result.most_behind_ms = max(result.most_behind_ms, behind)
        moment = iso(answer.time)
        result.first = min(result.first or moment, moment)
        result.last = max(result.last or moment, moment)

    def cells(
        self, answer: Answer, features: Sequence[str], served: Floats, recomputed: Recomputed
    ) -> None:
        result, wrong = self.result, differing(served, recomputed.rows)
        for column, name in enumerate(features):
            if name in recomputed.skipped:
                add(result.cells_not_compared, recomputed.skipped[name], len(served))
                continue
            result.cells += len(served)
            of = result.features.setdefault(name, FeatureParity())
            of.cells += len(served)
            for row in np.flatnonzero(wrong[:, column]):
                reason = recomputed.reason(name, answer.items[row])
                result.differing += 1
                add(result.reasons, reason)
                if of.differing < self.examples:
                    pair = served[row, column], recomputed.rows[row, column]
                    result.examples.append(_example(answer, int(row), name, pair, reason))
                of.differing += 1
                add(of.reasons, reason)

    def scores(self, answer: Answer, native: npt.NDArray[np.float64] | None) -> None:
        result = self.result
        if native is None:
            why = "the model of their release was deleted"
            add(result.scores_not_compared, why, len(answer.scores))
            return
        gaps = np.abs(native - answer.scores)
        result.scores += len(gaps)
        result.scores_differing += int((~(gaps <= SCORE_TOLERANCE)).sum())
        result.largest_score_difference = max(
            result.largest_score_difference, float(np.nan_to_num(gaps, nan=np.inf).max(initial=0))
        )


def differing(left: Floats, right: Floats) -> npt.NDArray[np.bool_]:
    """Where two arrays of float32 differ in a bit; nan equals nan, whatever its bits."""
    other = left.view(np.int32) != right.view(np.int32)
    found: npt.NDArray[np.bool_] = other & ~(np.isnan(left) & np.isnan(right))
    return found


def _example(
    answer: Answer, row: int, feature: str, values: tuple[float, float], reason: str
) -> Example:
    served, recomputed = (None if np.isnan(value) else float(value) for value in values)
    request, item = answer.request_id, answer.items[row]
    return Example(request, item, feature, served, recomputed, str(reason), iso(answer.time))


def write(settings: Settings, report: ParityReport) -> Path:
    """Keep the report as the last one, in one step; status and metrics tell of it."""
    path = parity_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    building.replace(path)
    return path


def iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
