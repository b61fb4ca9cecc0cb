"""The offline tables made anew from the lake, for the proof: jobs, Feast's registry, retrieval."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ServiceError
from contracts.events import CLOCK_SKEW
from contracts.settings import Settings
from local_stack.cli.progress import StepProgress
from local_stack.lag import Lag
from local_stack.rebuild import run_spark_jobs
from monitoring.served import Selection

if TYPE_CHECKING:
    from monitoring.parity import ParityReport
    from monitoring.stored import FeatureReader

STEPS = 3
STORED_MS = 30_000
"""While traffic goes on, a message is in the lake after so long: the consumer stores its buffer
every 15 seconds."""
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

    @property
    def is_whole(self) -> bool:
        """Whether status and metrics may tell of it: a part of the answers, or tables of some other
        time, would hide what the last proof found."""
        chosen = self.selection
        return not self.offline and not chosen.sample and chosen.until == Selection.until


def prove(settings: Settings, proof: Proof, progress: StepProgress) -> ParityReport:
    """Make the tables, compare, keep the report as the last one if it is of all answers there are
    since some time."""
    from monitoring import parity

    with _scratch(settings) as folder:
        selection = proof.selection
        if proof.offline:
            progress.skip(1)
            tables = proof.offline
        else:
            selection = replace(selection, told=_in_the_lake(settings))
            tables = _tables(settings, str(proof.keep or folder / "offline"), progress)
        with progress.step("feast apply, over these tables"):
            read = reader(settings, tables, folder)
        with progress.step("served rows beside recomputed ones"):
            report = parity.parity(
                settings, tables, read, selection=selection, lag_ms=proof.lag_ms,
                threshold=proof.threshold, examples=proof.examples, report=progress,
            )  # fmt: skip
    if proof.is_whole:
        parity.write(settings, report)
    return report


def _in_the_lake(settings: Settings) -> int:
    """Milliseconds: everything that was sent before is in the lake."""
    now = time.time_ns() // 1_000_000
    try:
        behind = Lag(settings).messages()
    except ServiceError:  # nothing runs: the consumer stored what it had when it ended
        behind = 1
    return now - (STORED_MS if behind else 0)


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
