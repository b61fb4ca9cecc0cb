"""What every benchmark's result has: the conditions it was measured under, and its raw file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from contracts.settings import ROOT, Settings

FOLDER = ROOT / "benchmarks" / "results"
PACKAGES = ("bentoml", "redis", "confluent-kafka", "tritonclient", "lightgbm", "feast", "numpy")
SETTINGS = ("deadline_ms", "candidate_count", "served_sample", "redis_type", "candidates")
"""The settings that a figure depends on."""


def conditions(settings: Settings, status: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Machine, versions and settings. `status`: what `local_stack.stack.status` says, if it runs."""
    services = (status or {}).get("services", [])
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _commit(),
        "packages": {name: version(name) for name in PACKAGES},
        "services": {service["name"]: service["version"] for service in services},
        "release": (status or {}).get("release"),
        "settings": {name: getattr(settings, name) for name in SETTINGS},
    }


def save(name: str, document: Mapping[str, Any]) -> Path:
    """Write a result with its raw samples to `<name>-<time>.json`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document) + "\n")
    return path


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor()


def _commit() -> str | None:
    """The commit measured, with a + when files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
