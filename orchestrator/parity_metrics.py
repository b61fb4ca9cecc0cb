"""What the last proof found (`./nextclick parity`), as Prometheus metrics of the API's page.

The proof is a job that ends: it leaves its report in a file, which is read anew at each scrape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts.parity import ParityResult, last_parity
from contracts.settings import Settings


def _now() -> float:
    return time.time()


class ParityMetrics(Collector):
    """No series at all where the proof was never run: absent is another thing than 0."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = _now) -> None:
        self._settings, self._clock = settings, clock

    def describe(self) -> Iterator[Metric]:
        """Nothing is read when the collector is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        found = last_parity(self._settings)
        if found is not None:
            for name, meaning, value in self._values(found):
                yield GaugeMetricFamily(f"nextclick_parity_{name}", meaning, value=value)

    def _values(self, found: ParityResult) -> Iterator[tuple[str, str, float]]:
        yield "cells", "Served feature values that the last proof computed again.", found.cells
        yield "differing", "Those of them that differ.", found.differing
        yield "scores", "Served scores that it computed again.", found.scores
        yield "scores_differing", "Those of them that differ.", found.scores_differing
        missing = sum(found.answers_not_compared.values())
        yield "answers_not_compared", "Answers that it could not compute again.", missing
        age = self._clock() - found.finished_ms / 1000
        yield "age_seconds", "Time since it was run.", max(age, 0.0)
