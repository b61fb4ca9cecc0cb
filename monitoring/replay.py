"""A past recommendation, answered again from what was logged: `nextclick replay REQUEST_ID`.

The rows that the ranker saw are scored by LightGBM itself with the model of the release that
answered, and each score is taken apart into what every feature added to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import SOURCES
from contracts.errors import ReleaseError, UsageError
from contracts.release import SCORE_TOLERANCE, Release, ReleaseStore
from contracts.settings import Settings
from contracts.tables import Lake
from monitoring.models import Rankers
from monitoring.served import Answer, Floats, Selection, ServedAnswers

Doubles = npt.NDArray[np.float64]
LAKE_SECONDS = 15
"""The consumer writes the lake at least so often (`orchestrator.consumer.buffer.Limits`)."""


@dataclass(frozen=True)
class ReplayedItem:
    """An item and why it stood there.

    sources: rank and score in each candidate source that proposed it. contributions: what each
    feature added to the score, the largest first; `base` and they add up to `replayed`.
    """

    item_id: str
    place: int
    replayed_place: int
    served: float
    replayed: float
    base: float
    sources: Mapping[str, Mapping[str, float | None]]
    values: Mapping[str, float | None]
    contributions: Mapping[str, float]


@dataclass(frozen=True)
class Replay:
    """An answer and its repetition. `same_order`: the same items in the same places, but for
    neighbours whose scores are closer than the two engines are. rules: of the release; effects: what
    they did to this answer (`contracts.rules.Effect`)."""

    request_id: str
    session_id: str
    time: int
    release: str
    ranker_version: int
    index: str
    rules_version: str
    rules: Mapping[str, Any]
    effects: tuple[Mapping[str, Any], ...]
    degraded: tuple[str, ...]
    visited: tuple[str, ...]
    same_order: bool
    largest_score_difference: float
    tolerance: float
    items: tuple[ReplayedItem, ...]

    @property
    def same(self) -> bool:
        return self.same_order and self.largest_score_difference <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        return {"same": self.same, **asdict(self)}


def replay(settings: Settings, request_id: str, item: str | None = None) -> Replay:
    """Answer it again. item: only this one of its items.

    UsageError for an answer that is not known or was not logged; ReleaseError where what is needed
    of its release was deleted.
    """
    answer = _answer(settings, request_id)
    if item is not None and item not in answer.items:
        raise UsageError(
            f"the answer {request_id} holds no item {item!r}; it holds {', '.join(answer.items)}"
        )
    rankers = Rankers(settings)
    release = rankers.release(answer.release)
    if release is None:
        raise ReleaseError(
            f"the release {answer.release} that gave the answer {request_id} was deleted"
        )
    rows = answer.rows(release.features)
    scores, added = rankers.scores(release, rows), rankers.contributions(release, rows)
    if scores is None or added is None:
        raise ReleaseError(
            f"release {release.version}: its ranker was deleted: {rankers.path(release)} is not"
            " there (the newest releases and the live one are kept)"
        )
    rules = ReleaseStore(settings.releases).rules(release)
    places = np.argsort(np.argsort(-scores, kind="stable"), kind="stable") + 1
    return Replay(
        request_id=request_id,
        session_id=answer.session_id,
        time=answer.time,
        release=release.version,
        ranker_version=release.ranker_version,
        index=answer.asked.index,
        rules_version=release.rules_version,
        rules=rules.model_dump(mode="json", exclude_defaults=True),
        effects=answer.asked.rules,
        degraded=answer.asked.degraded,
        visited=answer.asked.visited,
        same_order=_descend(scores) if not rules.moves else _same_scores(scores, answer),
        largest_score_difference=float(np.abs(scores - answer.scores).max()),
        tolerance=SCORE_TOLERANCE,
        items=tuple(
            _item(
                answer, release, rows, place, int(places[place]), float(scores[place]), added[place]
            )
            for place, name in enumerate(answer.items)
            if item in (None, name)
        ),
    )


def _descend(scores: Doubles) -> bool:
    """Whether the scores of the served order descend, as far as two engines can agree on it."""
    return bool((np.diff(scores) <= 2 * SCORE_TOLERANCE).all())


def _same_scores(scores: Doubles, answer: Answer) -> bool:
    """Where rules moved items the scores need not descend: then the list is the same if its scores
    are, as the rules are."""
    return bool((np.abs(scores - answer.scores) <= SCORE_TOLERANCE).all())


def _item(
    answer: Answer,
    release: Release,
    rows: Floats,
    row: int,
    place: int,
    score: float,
    added: Doubles,
) -> ReplayedItem:
    values = dict(zip(release.features, map(_number, rows[row]), strict=True))
    parts = sorted(
        zip(release.features, added[:-1].tolist(), strict=True), key=lambda part: -abs(part[1])
    )
    return ReplayedItem(
        item_id=answer.items[row],
        place=row + 1,
        replayed_place=place,
        served=float(answer.scores[row]),
        replayed=score,
        base=float(added[-1]),
        sources=_sources(values),
        values=values,
        contributions=dict(parts),
    )


def _sources(values: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """Sources that proposed it, best rank first."""
    found = {
        source: {"rank": rank, "score": values.get(f"{source}_score")}
        for source in SOURCES
        if (rank := values.get(f"{source}_rank")) is not None
    }
    return dict(sorted(found.items(), key=lambda pair: float(pair[1]["rank"] or 0)))


def _number(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)


def _answer(settings: Settings, request_id: str) -> Answer:
    served = ServedAnswers(settings, Selection(request=request_id))
    found = [answer for chunk in served for answer in chunk]
    if found:
        return found[0]
    if served.incomparable:
        why = "; ".join(served.incomparable)
        raise UsageError(f"the answer {request_id} cannot be replayed: {why}")
    raise UsageError(
        f"no answer {request_id!r} is in the lake {settings.lake}/{Lake.served}: the consumer takes"
        f" up to {LAKE_SECONDS} s to write it there, and an answer without items is not logged"
    )
