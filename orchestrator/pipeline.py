"""The way of a request: from a session to a ranked list, within a deadline, whatever fails.

session -> candidates -> item features -> matrix -> ranking -> top k -> impression. Every stage has
a budget, a timing and a fallback; a stage that fails makes the answer poorer, never an error, and
is named in `degraded`:

session     the session store did not answer: only the events in the request counted
candidates  no candidates for the session: popular items of the last index that was loaded
features    no item features: the ranker saw missing values
ranking     no scores: the items are in the order of the candidates
rules       the business rules could not be applied: the order of the scores
release     no release is live yet: the list is empty
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from contracts.candidates import CandidateSet, with_items
from contracts.columns import items_to_read, request_columns
from contracts.deadline import Deadline
from contracts.features import BY_NAME, Group, matrix
from contracts.pair import KNOWN
from contracts.rules import COLUMNS, Arrangement, applying, arrange, known_of
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
        read, columns = await self._columns(run, live, events, candidates)
        scored = await self._scored(run, live, columns, candidates)
        if scored is None:
            scores = by_candidate_order(candidates)
            order = self._arranged(run, live, candidates, scores, read)
            return Ranked(candidates.take(order), scores[order])
        release, rows, scores = scored
        order = self._arranged(run, release, candidates, scores, read)
        top = candidates.take(order)
        features = release.release.features
        return Ranked(top, scores[order], release.release.version, features, rows[order])

    def _arranged(
        self, run: _Run, live: LiveRelease, candidates: CandidateSet, scores: Floats, read: ItemRows
    ) -> npt.NDArray[np.intp]:
        """Rows of the list, by scores and business rules."""
        begun = time.perf_counter()
        visited, k = run.basis.visited, run.request.k
        try:
            category = read.columns["category_id"]
            last = int(category[run.basis.rows[visited[-1]]]) if visited else 0
            found = _by_rules(live, candidates, scores, read, k, last)
        except Exception as error:  # noqa: BLE001  whatever it is, the answer must not fail
            self._degrade(run, "rules")
            self._failures.warn("rules", error, request_id=run.request_id)
            found = Arrangement(np.argsort(-scores, kind="stable")[:k])
        run.basis.effects = [effect.as_dict() for effect in found.effects]
        taken = time.perf_counter() - begun
        run.timings_ms["rules"] = round(taken * 1000, 3)
        self._metrics.stages["rules"].observe(taken)
        return found.order

    async def _candidates(self, run: _Run, live: LiveRelease, visited: list[str]) -> CandidateSet:
        request = run.request
        exclude = live.rules.left_out(visited, request.exclude, request.exclude_seen)
        run.basis.exclude = exclude
        count = self._settings.candidate_count
        budget = self._settings.candidates_budget_ms
        timeout = run.deadline.remaining(budget / 1000)
        call = live.finder.candidates(visited, count, exclude, timeout)
        found = await self._attempt(run, "candidates", budget, call)
        if found is not None:
            run.basis.index = live.finder.version
            return with_items(found, _pinned(live, exclude))
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
    ) -> tuple[ItemRows, Columns]:
        """What was read of the items, and every column that a ranker may ask for."""
        rows = run.basis.rows = items_to_read(run.basis.visited, candidates)
        names = _item_columns(live)
        call = self._items.items(list(rows), names, run.moment)
        read = await self._attempt(run, "features", self._settings.features_budget_ms, call)
        if read is None:
            read = ItemRows({name: _unknown(name, len(rows)) for name in names}, {})
        run.basis.versions = read.versions
        begun = time.perf_counter()
        columns = request_columns(events, run.moment, run.request.context, candidates, read.columns)
        run.timings_ms["matrix"] = _milliseconds_since(begun)
        return read, columns

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
    """Item features that the release's ranker uses, and those that pair features and rules look at."""
    ranked = [name for name in live.release.features if BY_NAME[name].group == Group.item]
    return tuple(dict.fromkeys([*KNOWN, *COLUMNS, *ranked]))


def _by_rules(
    live: LiveRelease, candidates: CandidateSet, scores: Floats, read: ItemRows, k: int, last: int
) -> Arrangement:
    """The list that the rules allow. last: category of the item that is looked at."""
    count = len(candidates)
    known = known_of({name: read.columns[name][:count] for name in COLUMNS}, candidates)
    known["available"] = _availability(read)[:count]
    rows = np.arange(count)
    if live.rules.pins:
        rows = _proposed_or_pinned(live, candidates, ~_untold(read)[:count], last)
    found = arrange(
        live.rules, [candidates.items[row] for row in rows], scores[rows],
        {name: values[rows] for name, values in known.items()}, k, last,
    )  # fmt: skip
    return Arrangement(rows[found.order], found.effects)


def _proposed_or_pinned(
    live: LiveRelease, candidates: CandidateSet, told: npt.NDArray[np.bool_], last: int
) -> npt.NDArray[np.intp]:
    """Rows without items that only a pin brought in, where the pin is for other visitors or the
    catalogue knows no such item."""
    pinned = {pin.item for pin in applying(live.rules, last)}
    proposed = ~np.isnan(candidates.ranks).all(axis=1)
    wanted = np.array([item in pinned for item in candidates.items], dtype=bool)
    return np.flatnonzero(proposed | (wanted & told))


def _availability(read: ItemRows) -> Floats:
    """1, 0, or nan for an item of which the catalogue has no row: it can be bought."""
    told = read.columns["available"].astype(np.float32)
    return np.where(_untold(read), np.float32(np.nan), told)


def _untold(read: ItemRows) -> npt.NDArray[np.bool_]:
    """Items of which the catalogue has no row; none where it could not be asked."""
    version = read.versions.get(BY_NAME["available"].view)
    return np.zeros(len(read.columns["available"]), bool) if version is None else version < 0


def _unknown(name: str, count: int) -> npt.NDArray[Any]:
    """A column that could not be read: 0 for an id, which means unknown, else nan."""
    if name.endswith("_id"):
        return np.zeros(count, dtype=np.int64)
    return np.full(count, np.nan, dtype=np.float32)


def _pinned(live: LiveRelease, exclude: Sequence[str]) -> list[str]:
    """Items that a rule may put into the list though no source proposes them."""
    return [pin.item for pin in live.rules.pins if pin.item not in exclude]


def _milliseconds_since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)
