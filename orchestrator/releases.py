"""Following the active release: load it whole, check it, then let it take the traffic.

Every second the name in `<releases>/ACTIVE` is read. A new one is loaded beside the live one:
manifest, features, candidate index with its checksums, ranker version in Triton, warm-up of both.
Only then one reference is swapped; requests under way keep the old release until they are done. A
release that is not whole is refused with its reason, the old one stays, and it is tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from contracts.errors import NextclickError, ReleaseError
from contracts.release import Release, ReleaseStore
from orchestrator.logs import LOGGER, Occasionally
from orchestrator.metrics import Metrics
from orchestrator.ports import CandidateFinder, LiveRelease, Ranker, RankerUnavailable

POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0
"""A refused release is tried again after this time."""
_WARM_ITEMS = 20
_WARM_SECONDS = 5.0


@dataclass(frozen=True)
class Refusal:
    version: str
    reason: str


class ReleaseFollower:
    """Implements `ports.Releases`.

    find: opens the candidates of a release; blocking, called in a thread; ReleaseError when they
    are not whole. switched: called after a release went live.
    """

    def __init__(
        self,
        *,
        store: ReleaseStore,
        find: Callable[[Release], CandidateFinder],
        ranker: Ranker,
        metrics: Metrics,
        candidate_count: int,
        switched: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._find, self._ranker = store, find, ranker
        self._metrics, self._count = metrics, candidate_count
        self._switched, self._clock = switched, clock
        self._failures = Occasionally()
        self._live: LiveRelease | None = None
        self._loaded: LiveRelease | None = None  # whole but for the ranker: not read twice
        self._retry_at = 0.0
        self.ranker_ready = False
        self.refusal: Refusal | None = None

    def current(self) -> LiveRelease | None:
        return self._live

    async def follow(self) -> None:
        """Check, again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Look once at what is active and go there; raises nothing."""
        try:
            version = await asyncio.to_thread(self._store.active_version)
            if version is not None:
                await self._go_to(version)
        except Exception as error:  # noqa: BLE001  following must not end
            self._failures.warn("following releases", error)

    async def _go_to(self, version: str) -> None:
        if self._live is not None and self._live.release.version == version:
            self.refusal = None
            if not self.ranker_ready:
                await self._ready_late(self._live)
        elif not self._just_refused(version):
            try:
                await self._switch(version)
            except NextclickError as error:
                self._refuse(version, str(error))
            except Exception as error:  # noqa: BLE001  a broken file may raise anything
                self._refuse(version, f"{type(error).__name__}: {error}")

    def _just_refused(self, version: str) -> bool:
        refused = self.refusal is not None and self.refusal.version == version
        return refused and self._clock() < self._retry_at

    async def _switch(self, version: str) -> None:
        loaded = self._loaded
        if loaded is None or loaded.release.version != version:
            loaded = await self._load(version)
            self._loaded = loaded
        release = loaded.release
        ready = True
        try:
            await self._ranker.prepare(release.ranker_version, len(release.features))
        except RankerUnavailable as error:
            if self._live is not None:
                raise
            # nothing answers yet: candidates without a ranker are better than an empty list
            ready = False
            self._failures.warn("ranker", error, release=version)
        self._live, self._loaded, self.refusal, self.ranker_ready = loaded, None, None, ready
        self._metrics.release(version)
        LOGGER.info("release %s answers", version, extra={"fields": {"release": version}})
        self._switched()

    async def _load(self, version: str) -> LiveRelease:
        release = await asyncio.to_thread(self._store.get, version)
        release.check_features()
        rules = await asyncio.to_thread(self._store.rules, release)
        finder = await asyncio.to_thread(self._find, release)
        popular = await finder.candidates([], self._count, (), _WARM_SECONDS)
        if finder.version != release.index_version:
            raise ReleaseError(
                f"release {version} names the candidate index {release.index_version}, the"
                f" candidates are of {finder.version}: the candidate service has to follow the"
                " same releases"
            )
        if not popular:
            raise ReleaseError(f"the candidate index {finder.version} gives no popular items")
        for item in popular.items[:_WARM_ITEMS]:
            await finder.candidates([item], self._count, (), _WARM_SECONDS)
            await asyncio.sleep(0)  # requests go first
        return LiveRelease(release, finder, popular, rules)

    async def _ready_late(self, live: LiveRelease) -> None:
        """The ranker of a release that went live without one."""
        try:
            await self._ranker.prepare(live.release.ranker_version, len(live.release.features))
        except NextclickError as error:
            self._failures.warn("ranker", error, release=live.release.version)
        else:
            self.ranker_ready = True

    def _refuse(self, version: str, reason: str) -> None:
        if self.refusal != (refusal := Refusal(version, reason)):
            fields = {"release": version}
            LOGGER.error("release %s is refused: %s", version, reason, extra={"fields": fields})
        self._metrics.release_refusals.inc()
        self.refusal, self._retry_at = refusal, self._clock() + RETRY_SECONDS
