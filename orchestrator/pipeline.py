"""The way of a request: from a session to a ranked list, within a deadline, whatever fails.

session -> candidates -> item features -> matrix -> ranking -> top k -> impression. Every stage has
a budget, a timing and a fallback; a stage that fails makes the answer poorer, never an error, and
is named in `degraded`:

session     the session store did not answer: only the events in the request counted
candidates  no candidates for the session: popular items of the last index that was loaded
features    no item features: the ranker saw missing values
ranking     no scores: the items are in the order of the candidates
release     no release is live yet: the list is empty
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from contracts.candidates import CandidateSet
from contracts.columns import items_to_read, request_columns
from contracts.deadline import Deadline
from contracts.features import BY_NAME, Group, matrix
from contracts.pair import CATALOGUE
from contracts.session import SessionEvent, SessionState, fold, items_of, visit
from contracts.settings import Settings
from orchestrator.answer import Ranked, answer_items, by_candidate_order
from orchestrator.logs import Occasionally
from orchestrator.metrics import Metrics
from orchestrator.ports import (
    Floats,
    ItemReader,
    ItemRows,
    LiveRelease,
    Ranker,
    Releases,
    SessionReader,
)
from orchestrator.request import RecommendRequest
from orchestrator.served import Basis, ServedLog

T = TypeVar("T")
Columns = Mapping[str, Any]
_LATELY_SECONDS = 10.0


@dataclass
class _Run:
    """One request on its way."""

    request: RecommendRequest
    deadline: Deadline
    request_id: str
    moment: int
    begun: float
    basis: Basis = field(default_factory=Basis)
    events: int = 0  # of the visit under way
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """`recommend` always answers; it raises for nothing but a cancelled request."""

    def __init__(
        self,
        *,
        settings: Settings,
        releases: Releases,
        sessions: SessionReader,
        items: ItemReader,
        ranker: Ranker,
        served: ServedLog,
        metrics: Metrics,
    ) -> None:
        self._settings, self._releases = settings, releases
        self._sessions, self._items, self._ranker = sessions, items, ranker
        self._served, self._metrics = served, metrics
        self._failures = Occasionally()
        self._degraded_at: dict[str, float] = {}

    def degraded_lately(self) -> list[str]:
        """Names that stood in the `degraded` of answers of the last seconds."""
        since = time.monotonic() - _LATELY_SECONDS
        return sorted(name for name, at in self._degraded_at.items() if at >= since)

    async def recommend(
        self, request: RecommendRequest, deadline: Deadline, *, probe: bool = False
    ) -> dict[str, Any]:
        """The answer as the client gets it. A probe leaves no impression."""
        run = _Run(request, deadline, uuid.uuid4().hex, request.moment, time.perf_counter())
        events = await self._visit(run)
        live = self._releases.current()
        if live is None:
            self._degrade(run, "release")
            return self._answer(run, None, Ranked.nothing())
        ranked = await self._ranked(run, live, events)
        answer = self._answer(run, ranked.release or live.release.version, ranked)
        if not probe and ranked.candidates:
            self._served.log(request, run.moment, answer, ranked, run.basis)
        return answer

    # --- stages --------------------------------------------------------------------------------

    async def _visit(self, run: _Run) -> tuple[SessionEvent, ...]:
        """The events of the visit under way. The moment moves to the newest event: the clocks of
        those who send events differ, and what was clicked must count."""
        state: SessionState | None = SessionState()
        if run.request.session_id:
            call = self._sessions.session(run.request.session_id, run.moment)
            state = await self._attempt(run, "session", self._settings.session_budget_ms, call)
        state = state or SessionState()
        run.basis.session_version = state.version
        state = fold(state, run.request.events)
        if state.events:
            run.moment = max(run.moment, state.events[-1].time)
        events = visit(state, run.moment)
        run.events = len(events)
        return events

    async def _ranked(
        self, run: _Run, live: LiveRelease, events: tuple[SessionEvent, ...]
    ) -> Ranked:
        visited = run.basis.visited = items_of(events)
        candidates = await self._candidates(run, live, visited)
        if not candidates:
            return Ranked.nothing()
        columns = await self._columns(run, live, events, candidates)
        scored = await self._scored(run, live, columns, candidates)
        if scored is None:
            return by_candidate_order(candidates, run.request.k)
        release, rows, scores = scored
        order = np.argsort(-scores, kind="stable")[: run.request.k]
        top = candidates.take(order)
        features = release.release.features
        return Ranked(top, scores[order], release.release.version, features, rows[order])

    async def _candidates(self, run: _Run, live: LiveRelease, visited: list[str]) -> CandidateSet:
        exclude = run.request.exclude
        count = self._settings.candidate_count
        budget = self._settings.candidates_budget_ms
        timeout = run.deadline.remaining(budget / 1000)
        call = live.finder.candidates(visited, count, exclude, timeout)
        found = await self._attempt(run, "candidates", budget, call)
        if found is not None:
            run.basis.index = live.finder.version
            return found
        run.basis.index = live.release.index_version
        unwanted = set(exclude)
        return live.popular.take(
            [row for row, item in enumerate(live.popular.items) if item not in unwanted]
        )

    async def _columns(
        self,
        run: _Run,
        live: LiveRelease,
        events: tuple[SessionEvent, ...],
        candidates: CandidateSet,
    ) -> Columns:
        """Every column that a ranker may ask for."""
        rows = run.basis.rows = items_to_read(run.basis.visited, candidates)
        names = _item_columns(live)
        call = self._items.items(list(rows), names, run.moment)
        read = await self._attempt(run, "features", self._settings.features_budget_ms, call)
        if read is None:
            unknown = np.full(len(rows), np.nan, dtype=np.float32)
            read = ItemRows(dict.fromkeys(names, unknown), {})
        run.basis.versions = read.versions
        begun = time.perf_counter()
        columns = request_columns(events, run.moment, run.request.context, candidates, read.columns)
        run.timings_ms["matrix"] = _milliseconds_since(begun)
        return columns

    async def _scored(
        self, run: _Run, live: LiveRelease, columns: Columns, candidates: CandidateSet
    ) -> tuple[LiveRelease, Floats, Floats] | None:
        """The release that ranked, the feature rows and the scores; None in place of an error."""
        budget = self._settings.ranking_budget_ms
        call = self._rank(run, live, columns, len(candidates))
        return await self._attempt(run, "ranking", budget, call)

    async def _rank(
        self, run: _Run, live: LiveRelease, columns: Columns, count: int
    ) -> tuple[LiveRelease, Floats, Floats]:
        rows = matrix(columns, count, live.release.features)
        timeout = run.deadline.remaining(self._settings.ranking_budget_ms / 1000)
        try:
            scores = await self._ranker.rank(rows, live.release.ranker_version, timeout)
        except Exception:
            now = self._releases.current()
            if now is None or now is live:
                raise
            return await self._rank(run, now, columns, count)  # the release was switched meanwhile
        if not np.isfinite(scores).all():
            raise ValueError("the ranker answered scores that are no numbers")
        return live, rows, scores

    async def _attempt(
        self, run: _Run, stage: str, budget_ms: int, call: Coroutine[Any, Any, T]
    ) -> T | None:
        """What a stage gives within its budget and the deadline, or None and a name in `degraded`."""
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(run.deadline.remaining(budget_ms / 1000)):
                return await call
        except Exception as error:  # noqa: BLE001  whatever it is, the answer must not fail
            self._degrade(run, stage)
            self._failures.warn(stage, error, request_id=run.request_id)
            return None
        finally:
            taken = time.perf_counter() - begun
            run.timings_ms[stage] = round(taken * 1000, 3)
            self._metrics.stages[stage].observe(taken)

    # --- the answer ----------------------------------------------------------------------------

    def _degrade(self, run: _Run, reason: str) -> None:
        run.degraded.append(reason)
        self._degraded_at[reason] = time.monotonic()
        self._metrics.degraded[reason].inc()

    def _answer(self, run: _Run, release: str | None, ranked: Ranked) -> dict[str, Any]:
        items = answer_items(ranked)
        best = Counter(source for item in items for source in item["sources"][:1])
        for source, times in best.items():
            self._metrics.sources[source].inc(times)
        if not items:
            self._metrics.empty.inc()
        run.timings_ms["total"] = _milliseconds_since(run.begun)
        return {
            "request_id": run.request_id,
            "items": items,
            "release": release,
            "session": {"events": run.events},
            "degraded": run.degraded,
            "timings_ms": run.timings_ms,
        }


def _item_columns(live: LiveRelease) -> tuple[str, ...]:
    """Item features that the release's ranker uses, and those that pair features are made from."""
    ranked = [name for name in live.release.features if BY_NAME[name].group == Group.item]
    return tuple(dict.fromkeys([*CATALOGUE, *ranked]))


def _milliseconds_since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
