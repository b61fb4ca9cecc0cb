"""What Prometheus reads: rates, durations, stages, degraded answers, sources, the live release.

Labels take their values from fixed sets, so that no client can make series without end. (That is
why BentoML's own request metrics are off: they label by the path as it came.)
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from contracts.candidates import SOURCES

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("session", "candidates", "features", "ranking", "rules")
DEGRADED = (*STAGES, "release")
_SECONDS = (.0005, .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075, .1, .15, .25, .5, 1, 5)  # fmt: skip


class Metrics:
    """One page of one process; `page()` renders it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "nextclick_requests", "Answers by route and status.", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self._durations = Histogram(
            "nextclick_request_seconds", "From a request's arrival to its answer.", ["route"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.in_flight = Gauge(
            "nextclick_requests_in_flight", "Requests being answered.", registry=registry
        )
        stages = Histogram(
            "nextclick_stage_seconds", "Time in a stage of /v1/recommend.", ["stage"],
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        degraded = Counter(
            "nextclick_degraded", "Answers that had to do without a part, by part.", ["reason"],
            registry=registry,
        )  # fmt: skip
        sources = Counter(
            "nextclick_items", "Recommended items by the source that ranked them best.",
            ["source"], registry=registry,
        )  # fmt: skip
        self.stages = {name: stages.labels(name) for name in STAGES}
        self.degraded = {name: degraded.labels(name) for name in DEGRADED}
        self.sources = {name: sources.labels(name) for name in SOURCES}
        self.empty = Counter(
            "nextclick_empty_answers", "Answers without an item.", registry=registry
        )
        events = Counter(
            "nextclick_events", "Events sent to /v1/events, by outcome.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.events = {name: events.labels(name) for name in ("accepted", "refused", "failed")}
        self.messages = Counter(
            "nextclick_messages", "Messages written off the answer's path, by outcome.",
            ["topic", "outcome"], registry=registry,
        )  # fmt: skip
        self.release_refusals = Counter(
            "nextclick_release_refusals", "Times a release was refused.", registry=registry
        )
        self._release = _ReleaseInfo()
        registry.register(self._release)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count an answer; `route` is a route of ours, never a path as it came."""
        self._requests.labels(route, status).inc()
        self._durations.labels(route).observe(seconds)

    def release(self, version: str) -> None:
        """Name the release that answers from now on."""
        self._release.version = version

    def page(self) -> bytes:
        return generate_latest(self.registry)


class _ReleaseInfo(Collector):
    """One series that names the live release; a Gauge with a label would keep those before it."""

    version = ""

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "nextclick_release_info", "1 for the release that answers.", labels=["release"]
        )
        if self.version:
            family.add_metric([self.version], 1)
        yield family
