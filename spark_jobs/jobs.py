"""The jobs by name, in the order in which they run, and one run of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # Spark's own documentation's name

from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings
from contracts.tables import Lake, Offline
from spark_jobs.catalogue import catalogue
from spark_jobs.clean import clean, count_reasons, first_known, messages, parsed
from spark_jobs.item_features import item_activity
from spark_jobs.queries import queries
from spark_jobs.session import spark_session
from spark_jobs.sessions import sessions
from spark_jobs.tables import Staging, read_lake
from spark_jobs.windows_job import run_windows

Progress = Callable[[str, int, int], None]
"""(step, steps done, steps in all)."""


@dataclass
class Run:
    """What one run of the jobs knows and finds out."""

    spark: SparkSession
    settings: Settings
    staging: Staging
    now: int | None
    rows: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    valid: int = 0
    repeats: int = 0
    _history: tuple[int, int] | None = None
    _messages: DataFrame | None = None

    def lake(self, table: Lake) -> DataFrame:
        """A lake table, without what was not known before `now`."""
        frame = read_lake(self.spark, self.settings.lake, table)
        known = F.coalesce("received", "time")
        return frame if self.now is None else frame.where(known < self.now)

    def write(self, table: Offline, frame: DataFrame, part: str = "", files: int = 1) -> None:
        name = f"{table.value}/{part}".rstrip("/")
        self.rows[name] = self.staging.write(table, frame, part, files)

    def events(self) -> DataFrame:
        return self.staging.read(Offline.events_clean)

    def messages(self) -> DataFrame:
        """`clean.messages` of the lake, read once in a run. UsageError where there is no event."""
        if self._messages is None:
            events = parsed(self.lake(Lake.events)).persist()
            reasons = count_reasons(events)
            self.valid = reasons.pop(None, 0)
            self.refused = {str(reason): count for reason, count in reasons.items()}
            _require_events(self)
            self._messages = messages(events).persist()
            self._messages.count()  # made while what it is made of is still there
            events.unpersist()
        return self._messages

    @property
    def history(self) -> tuple[int, int]:
        """When the first event happened and when the last one had become known, milliseconds."""
        if self._history is None:
            known = F.greatest("time", "received")
            first, last = self.events().agg(F.min("time"), F.max(known)).collect()[0]
            self._history = first, last
        return self._history

    @property
    def until(self) -> int:
        """`now`, or where it was not given the moment after the last event."""
        return self.history[1] + 1 if self.now is None else self.now


def run_clean(run: Run) -> None:
    run.write(Offline.events_clean, clean(run.messages()), files=4)
    run.repeats = run.valid - run.rows[Offline.events_clean.value]


def _require_events(run: Run) -> None:
    if not run.valid and not run.refused:
        raise UsageError(
            f"the event lake {run.settings.lake} holds no events{_before(run.now)}: bring some, "
            "./nextclick data import FILE or ./nextclick data generate"
        )
    if not run.valid:
        raise UsageError(
            f"{run.settings.lake}/events holds no valid event{_before(run.now)}; rows refused by "
            f"reason: {run.refused}"
        )


def _before(now: int | None) -> str:
    return "" if now is None else f" before {now} (--now)"


def run_sessions(run: Run) -> None:
    run.write(Offline.session, sessions(run.messages()), files=4)


def run_catalogue(run: Run) -> None:
    frame = catalogue(run.lake(Lake.products), run.lake(Lake.prices))
    run.write(Offline.item_catalogue, frame)


def run_activity(run: Run) -> None:
    frame = item_activity(first_known(run.messages()), run.lake(Lake.impressions), run.until)
    run.write(Offline.item_activity, frame, files=4)


def run_queries(run: Run) -> None:
    run.write(Offline.queries, queries(run.events()))


JOBS: dict[str, Callable[[Run], None]] = {
    "clean": run_clean,
    "sessions": run_sessions,
    "catalogue": run_catalogue,
    "activity": run_activity,
    "queries": run_queries,
    "windows": run_windows,
}


def default_jobs(settings: Settings) -> list[str]:
    """All jobs; trends only for who has the stream go on with them, because they cost as much as
    all other item features and no ranker reads them yet."""
    return [job for job in JOBS if settings.stream or job != "windows"]


class Steps:
    """Reports the steps of a run and takes their times."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._total = progress, total

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._progress(name, len(self.seconds), self._total)
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 2)
        if len(self.seconds) == self._total:
            self._progress("done", self._total, self._total)


def run_jobs(
    settings: Settings, jobs: Sequence[str], now: int | None, progress: Progress
) -> dict[str, Any]:
    """Run the jobs in one Spark application, publish their tables together; the summary.

    now: milliseconds; only what was known before counts; None: all of it, up to the last event.
    The tables go to `settings.offline`, which need not be the live ones' place. UsageError for an
    empty lake, ServiceError when Spark fails.
    """
    chosen = in_order(jobs)
    steps = Steps(progress, len(chosen) + 2)
    with steps.step("start Spark"):
        spark = spark_session(settings)
    try:
        run = Run(spark, settings, Staging(spark, settings), now)
        run.staging.recover()
        _run_steps(run, chosen, steps)
        return summary(run, steps.seconds)
    except (PySparkException, Py4JError, OSError) as error:
        raise ServiceError(f"Spark failed: {first_words(error)}") from error
    finally:
        spark.stop()


def in_order(jobs: Sequence[str]) -> list[str]:
    """The jobs in the order in which they run; UsageError for a name that is none's."""
    unknown = sorted(set(jobs) - set(JOBS))
    if unknown or not jobs:
        raise UsageError(
            f"no job is called {', '.join(unknown) or ''!r}; there are {', '.join(JOBS)}"
        )
    return [job for job in JOBS if job in jobs]


def _run_steps(run: Run, jobs: Sequence[str], steps: Steps) -> None:
    try:
        for job in jobs:
            with steps.step(job):
                JOBS[job](run)
        with steps.step("publish"):
            run.staging.publish()
    except BaseException:
        run.staging.discard()
        raise


def summary(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """What `--json` prints. Times in milliseconds since 1970, durations in seconds."""
    first, last = run.history
    return {
        "rows": run.rows,
        "refused": run.refused,
        "repeats": run.repeats,
        "first": first,
        "last": last,
        "now": run.until,
        "seconds": seconds,
    }


def first_words(error: BaseException) -> str:
    """Spark's texts run over pages of Java; a person needs the first line, and of a Python
    worker's traceback the last."""
    python = str(error).split("\nJVM stacktrace:")[0]
    lines = [line.strip() for line in python.splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]]) if "Traceback" in python else lines[:2])[
        :600
    ]
