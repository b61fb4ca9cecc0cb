"""The parts of a running API, put together: from real ones by `bootstrap`, from fakes by tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from contracts.deadline import Deadline
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from orchestrator.events_door import EventsDoor
from orchestrator.metrics import Metrics
from orchestrator.parity_metrics import ParityMetrics
from orchestrator.pipeline import Pipeline
from orchestrator.ports import (
    CandidateFinder,
    EventLog,
    Impressions,
    ItemReader,
    Ranker,
    SessionReader,
)
from orchestrator.releases import ReleaseFollower
from orchestrator.request import parse_recommend
from orchestrator.served import ServedLog


@dataclass(frozen=True)
class World:
    """What lies outside: every port, and how each is closed."""

    sessions: SessionReader
    items: ItemReader
    ranker: Ranker
    find: Callable[[Release], CandidateFinder]
    event_log: EventLog
    impressions: Impressions
    close: tuple[Callable[[], Awaitable[object]], ...] = ()


@dataclass(frozen=True)
class Parts:
    settings: Settings
    pipeline: Pipeline
    events: EventsDoor
    metrics: Metrics
    follower: ReleaseFollower
    world: World

    async def warm_up(self) -> None:
        """A few answers that nobody gets, through a pipeline that counts and logs nothing of them:
        the first visitor must not wait for connections and imports."""
        settings = self.settings.model_copy(update=_PATIENT)
        pipeline = _pipeline(settings, self.follower, self.world, Metrics())
        for _ in range(_WARM_ANSWERS):
            request = parse_recommend(b'{"session_id": "warm-up"}', settings, 0)
            deadline = Deadline(settings.deadline_ms / 1000)
            await pipeline.recommend(request, deadline, probe=True)

    def release_state(self) -> dict[str, Any]:
        """What GET /v1/release answers."""
        live, refusal = self.follower.current(), self.follower.refusal
        return {
            "release": None if live is None else live.release.version,
            "refused": None
            if refusal is None
            else {"version": refusal.version, "reason": refusal.reason},
        }

    def degraded(self) -> list[str]:
        """Names of what answers do without at present."""
        if self.follower.current() is None:
            return ["release"]
        missing = self.pipeline.degraded_lately()
        return missing if self.follower.ranker_ready else sorted({*missing, "ranking"})

    async def close(self) -> None:
        for close in self.world.close:
            await close()


def assemble(
    settings: Settings,
    world: World,
    metrics: Metrics,
    switched: Callable[[], object] = lambda: None,
) -> Parts:
    """The parts over a world. No connection is made here, and no release is live yet."""
    follower = ReleaseFollower(
        store=ReleaseStore(settings.releases),
        find=world.find,
        ranker=world.ranker,
        metrics=metrics,
        candidate_count=settings.candidate_count,
        switched=switched,
    )
    pipeline = _pipeline(settings, follower, world, metrics)
    events = EventsDoor(settings, world.event_log, world.impressions, metrics)
    metrics.registry.register(ParityMetrics(settings))
    return Parts(settings, pipeline, events, metrics, follower, world)


def _pipeline(
    settings: Settings, follower: ReleaseFollower, world: World, metrics: Metrics
) -> Pipeline:
    return Pipeline(
        settings=settings,
        releases=follower,
        sessions=world.sessions,
        items=world.items,
        ranker=world.ranker,
        served=ServedLog(world.impressions, settings.served_sample, settings.candidate_count),
        metrics=metrics,
    )


_WARM_ANSWERS = 3
_PATIENT = {
    "deadline_ms": 2000,
    "session_budget_ms": 1000,
    "features_budget_ms": 1000,
    "ranking_budget_ms": 1000,
}
