"""The BentoML service: `bentoml serve orchestrator.service:NextclickService`.

The hot routes are an ASGI app of their own (`orchestrator.api`), mounted into it: a third of the
cost of BentoML's. BentoML's access log and its request metrics are off; `/metrics` has our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import bentoml

from contracts.settings import Settings
from orchestrator import bootstrap, logs
from orchestrator.api import create_app
from orchestrator.parts import Parts
from orchestrator.probes import Probes

app = create_app()
REQUEST_SECONDS = 15
"""BentoML ends a request that has not begun to answer by then: one whose body never comes."""


def calm_collector() -> None:
    """What was loaded is never garbage: without this a full collection over it stops the answers
    for 100 ms and more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)


def _state() -> dict[str, Any]:
    parts: Parts | None = getattr(app.state, "parts", None)
    return {} if parts is None else {**parts.release_state(), "degraded": parts.degraded()}


@bentoml.asgi_app(app)
@bentoml.service(
    name="nextclick",
    workers=1,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},  # no exporter, but 0.7 ms a request
    traffic={"timeout": REQUEST_SECONDS},
)
class NextclickService:
    """Ranked lists for shop sessions."""

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def start(self) -> None:
        settings = Settings.from_environment()
        logs.configure(settings.log_level)
        self._parts = await bootstrap.open_parts(settings, switched=calm_collector)
        app.state.parts = self._parts
        self._following = asyncio.create_task(self._parts.follower.follow())
        calm_collector()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def stop(self) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        await self._parts.close()


NextclickService.add_asgi_middleware(Probes, state=_state)  # type: ignore[attr-defined]
