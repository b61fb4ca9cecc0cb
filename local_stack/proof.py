"""The offline tables made anew from the lake, for the proof: jobs, Feast's registry, retrieval."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.events import CLOCK_SKEW
from contracts.settings import Settings
from local_stack.cli.progress import StepProgress
from local_stack.rebuild import run_spark_jobs

if TYPE_CHECKING:
    from monitoring.parity import ParityReport
    from monitoring.served import Selection
    from monitoring.stored import FeatureReader

STEPS = 3
JOBS = ("clean", "sessions", "catalogue", "activity")
"""What the served features are made from."""


@dataclass(frozen=True)
class Proof:
    """What a run of the proof asks for. offline: tables that were made before; keep: a new folder
    for those that are made, which else are deleted in the end."""

    selection: Selection
    lag_ms: int
    threshold: float = 0.0
    examples: int = 3
    offline: str | None = None
    keep: Path | None = None


def prove(settings: Settings, proof: Proof, progress: StepProgress) -> ParityReport:
    """Make the tables, compare, keep the report as the last one."""
    from monitoring import parity

    with _scratch(settings) as folder:
        if proof.offline:
            progress.skip(1)
            tables = proof.offline
        else:
            tables = _tables(settings, str(proof.keep or folder / "offline"), progress)
        with progress.step("feast apply, over these tables"):
            read = reader(settings, tables, folder)
        with progress.step("served rows beside recomputed ones"):
            report = parity.parity(
                settings, tables, read, selection=proof.selection, lag_ms=proof.lag_ms,
                threshold=proof.threshold, examples=proof.examples, report=progress,
            )  # fmt: skip
    parity.write(settings, report)
    return report


@contextmanager
def _scratch(settings: Settings) -> Iterator[Path]:
    parent = settings.home / "parity"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="scratch-") as folder:
        yield Path(folder)


def _tables(settings: Settings, offline: str, progress: StepProgress) -> str:
    """Offline tables of all that the lake holds, in that folder."""
    # what senders' clocks say of the future was served too
    until = datetime.now(UTC) + CLOCK_SKEW + timedelta(seconds=1)
    with progress.step("Spark: the offline tables anew, from the lake"):
        scratch = settings.model_copy(update={"offline": offline})
        made = run_spark_jobs(scratch, until, progress, JOBS)
        progress.note(", ".join(f"{name} {rows:,} rows" for name, rows in made["rows"].items()))
    return offline


def reader(settings: Settings, offline: str, folder: Path) -> FeatureReader:
    """Feast's historical retrieval over the tables in `offline`, by a registry of its own: the
    registry of the settings names the tables that serving was made from."""
    from feast_engine.historical import stored_features
    from feast_engine.store import apply, open_store

    registry = str(folder / "registry.db")
    here = settings.model_copy(update={"offline": offline, "feast_registry": registry})
    apply(here)
    store = open_store(here)
    return lambda frame, views: stored_features(frame, store, views)
