"""The parts of a running API, put together: from real ones by `bootstrap`, from fakes by tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from orchestrator.events_door import EventsDoor
from orchestrator.metrics import Metrics
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
    closers: tuple[Callable[[], Awaitable[object]], ...] = field(default=())

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
        for close in self.closers:
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
    pipeline = Pipeline(
        settings=settings,
        releases=follower,
        sessions=world.sessions,
        items=world.items,
        ranker=world.ranker,
        served=ServedLog(world.impressions, settings.served_sample),
        metrics=metrics,
    )
    events = EventsDoor(settings, world.event_log, world.impressions, metrics)
    return Parts(settings, pipeline, events, metrics, follower, world.close)
