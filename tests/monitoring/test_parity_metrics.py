"""The last proof where it is seen: the API's metrics, the dashboard, the status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from contracts.parity import last_parity, parity_path
from contracts.settings import ROOT, Settings
from local_stack.show_parity import parity_line
from orchestrator.consumer.health import Metrics as ConsumerMetrics
from orchestrator.metrics import Metrics
from orchestrator.parity_metrics import ParityMetrics

FOUND = {
    "finished_ms": 1_767_225_600_000, "verdict": "differing", "rows": 20, "cells": 900,
    "differing": 3, "scores": 20, "scores_differing": 1, "answers_not_compared": {"gone": 2, "old": 5},
    "features": {"price": {"cells": 20}},
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path})


def page(settings: Settings) -> str:
    metrics = Metrics()
    metrics.registry.register(ParityMetrics(settings, clock=lambda: 1_767_225_660.0))
    return metrics.page().decode()


def keep(settings: Settings, text: str) -> None:
    path = parity_path(settings)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_proof_is_on_the_page_and_a_newer_one_replaces_it(settings: Settings) -> None:
    assert "nextclick_parity" not in page(settings)
    keep(settings, json.dumps(FOUND))
    expected = {
        "cells": 900, "differing": 3, "scores": 20, "scores_differing": 1,
        "answers_not_compared": 7, "age_seconds": 60,
    }  # fmt: skip
    for name, value in expected.items():
        assert f"\nnextclick_parity_{name} {value}.0\n" in page(settings)
    keep(settings, json.dumps({**FOUND, "differing": 0}))
    assert "\nnextclick_parity_differing 0.0\n" in page(settings)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}'])
def test_a_report_that_cannot_be_read_is_no_report(settings: Settings, text: str) -> None:
    keep(settings, text)
    assert "nextclick_parity" not in page(settings)
    assert "nextclick_requests_in_flight" in page(settings)


def test_status_says_it_in_a_line(settings: Settings) -> None:
    keep(settings, json.dumps(FOUND))
    assert parity_line(last_parity(settings)) == (
        "parity: differing, 3 of 900 cells differ (2026-01-01 00:00 UTC)"
    )


def expressions() -> list[str]:
    dashboard: dict[str, Any] = json.loads((ROOT / "deploy/grafana/nextclick.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_there_are(settings: Settings) -> None:
    keep(settings, json.dumps(FOUND))
    metrics = Metrics()
    metrics.release("r1")
    metrics.answered("/v1/recommend", 200, 0.01)
    told = (
        page(settings)
        + metrics.page().decode()
        + generate_latest(ConsumerMetrics().registry).decode()
    )
    there = set(re.findall(r"^(nextclick_\w+)", told, re.MULTILINE))
    asked = {name for each in expressions() for name in re.findall(r"nextclick_\w+", each)}
    assert asked <= there
    assert {"nextclick_parity_differing", "nextclick_parity_age_seconds"} <= asked
