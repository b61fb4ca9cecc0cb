"""The way of a model: from the offline tables to a release, gate by gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.candidates import Candidates
from contracts.errors import ReleaseError, UsageError
from contracts.features import RANKED, fingerprint
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from contracts.windows import Windows
from training import (
    baselines,
    dataset,
    evaluate,
    export,
    history,
    parity,
    ranker,
    release,
    rows_file,
    tracking,
)
from training.dataset import FeatureReader, Listed, Rows
from training.history import Query

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

TRAINED_QUERIES = 12_000
TESTED_QUERIES = 6_000

Report = Callable[[str, int, int], None]
"""Told a step's name and how far it is: done, of."""


@dataclass(frozen=True)
class TrainingResult:
    """`seconds` by step; `rows` is the file of the training rows."""

    release: Release
    metrics: dict[str, Any]
    seconds: dict[str, float]
    rows: Path


@dataclass
class Steps:
    """Names and times the steps."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Gives what the step tells its progress to."""
        start = time.monotonic()
        self.report(name, 0, 1)
        yield lambda done, of: self.report(name, done, of)
        self.seconds[name] = round(time.monotonic() - start, 2)
        self.report(name, 1, 1)


@dataclass(frozen=True)
class Learned:
    """A fitted ranker and what it learned from."""

    fitted: ranker.Fitted
    rows: Rows
    listed: list[Listed]
    dropped: int  # queries whose label was not among the candidates


@dataclass(frozen=True)
class Tested:
    metrics: dict[str, Any]
    served: evaluate.Evaluated


def train(
    settings: Settings,
    *,
    queries: int = TRAINED_QUERIES,
    tested: int = TESTED_QUERIES,
    seed: int = 0,
    report: Report = lambda step, done, of: None,  # noqa: ARG005
) -> TrainingResult:
    """Train on the label window, test on the last window, and make a release that passed the gates.

    queries, tested: how many queries are drawn from each window at most. The release is not live
    by that: `release.check_release`, then `ReleaseStore.activate`. UsageError where there is too
    little to learn from, ServiceError where MLflow or Triton is not up, ReleaseError where the
    served model does not say what LightGBM says.
    """
    steps = Steps(report)
    with steps.step("look for MLflow and Triton"):
        tracking.require_mlflow(settings)
        parity.require_triton(settings)
    windows = history.windows(settings)
    learning, testing, asked = _queries(settings, windows, queries, tested, seed)
    read = _reader(settings)
    past, recent, whole = _indexes(settings, windows, steps)
    learned = _learn(learning, past, settings.candidate_count, read, seed, steps)
    result = _test(settings, testing, asked, recent, windows, learned, read, steps)
    config = _configuration(settings, windows, learned, whole.version, queries, seed)
    with steps.step("register in MLflow"):
        figures = tracking.flat(result.metrics) | {"later_ndcg_20": learned.fitted.ndcg}
        documents = {
            "metrics.json": result.metrics, "features.json": list(RANKED), "config.json": config,
        }  # fmt: skip
        booster = learned.fitted.booster
        tracked = tracking.track(settings, booster, _parameters(config), figures, documents)
        rows = rows_file.save(settings, tracked.run, learned.rows, learned.listed)
    gap = _export(settings, tracked, booster, result.served, steps)
    with steps.step("make the release"):
        made = release.make_release(
            settings, tracked=tracked, index_version=whole.version, metrics=result.metrics,
            gap=gap, served=result.served,
        )  # fmt: skip
    return TrainingResult(made, result.metrics, steps.seconds, rows)


def _queries(
    settings: Settings, windows: Windows, count: int, tested: int, seed: int
) -> tuple[list[Query], list[Query], int]:
    """Queries to learn from and to test on, and how many the test window has."""
    learning = history.queries(settings, windows.label_start, windows.test_start)
    testing = history.queries(settings, windows.test_start, windows.end)
    for what, found in (("label", learning), ("test", testing)):
        if len(found) < ranker.MIN_QUERIES:
            raise UsageError(
                f"the {what} window has {len(found)} next clicks, training needs at least"
                f" {ranker.MIN_QUERIES}: import more history (./nextclick data import), or"
                " generate a larger shop (./nextclick data generate)"
            )
    chosen = history.sample(learning, count, seed)
    return chosen, history.sample(testing, tested, seed), len(testing)


def _indexes(
    settings: Settings, windows: Windows, steps: Steps
) -> tuple[Candidates, Candidates, Candidates]:
    """The index of each cut-off: to learn from, to test with, to serve."""
    from candidate_service.build import build_for
    from candidate_service.index import CandidateIndex

    found = []
    with steps.step("build candidate indexes") as progress:
        for cutoff in windows.cutoffs:
            manifest = build_for(settings, cutoff)
            found.append(CandidateIndex.load(settings.indexes / manifest.version))
            progress(len(found), len(windows.cutoffs))
    return found[0], found[1], found[2]


def _reader(settings: Settings) -> FeatureReader:
    """Point-in-time retrieval through Feast's historical path."""
    from feast_engine.historical import stored_features
    from feast_engine.store import open_store

    store = open_store(settings)

    def read(entities: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
        return stored_features(entities, store, views)

    return read


def _learn(
    queries: list[Query],
    index: Candidates,
    count: int,
    read: FeatureReader,
    seed: int,
    steps: Steps,
) -> Learned:
    with steps.step("candidates of the label window"):
        listed = dataset.with_negatives(dataset.propose(queries, index, count), seed)
    with steps.step("features of the label window"):
        rows = dataset.rows_of(listed, read) if listed else None
    if rows is None:
        raise UsageError(
            f"no label of {len(queries)} queries is among the candidates: the history before the"
            " label window is too short, import more of it"
        )
    with steps.step("fit the ranker"):
        fitted = ranker.fit(rows, seed)
    return Learned(fitted, rows, listed, len(queries) - len(listed))


def _test(
    settings: Settings,
    queries: list[Query],
    asked: int,
    index: Candidates,
    windows: Windows,
    learned: Learned,
    read: FeatureReader,
    steps: Steps,
) -> Tested:
    count, cutoff = settings.candidate_count, windows.test_start
    with steps.step("candidates of the test window"):
        listed = dataset.propose(queries, index, count)

    def score(rows: parity.Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
        return parity.native_scores(learned.fitted.booster, rows)

    with steps.step("test the ranker") as progress:
        result = evaluate.evaluate(listed, read, score, progress)
    with steps.step("test the baselines"):
        clicks = history.clicks(settings, cutoff)
        methods = {
            "ranker": result.ranks,
            "merged_candidates": evaluate.merged_ranks(listed),
            "covisitation": baselines.covisitation(clicks, queries, cutoff),
            "popularity": baselines.popularity(clicks, queries, cutoff),
        }
    known = set(clicks["item_id"].unique().to_pylist())
    return Tested(evaluate.summary(methods, listed, asked, count, known), result)


def _configuration(
    settings: Settings, windows: Windows, learned: Learned, index: str, queries: int, seed: int
) -> dict[str, Any]:
    return {
        "windows": {
            "label_start": windows.label_start, "test_start": windows.test_start, "end": windows.end,
        },
        "seed": seed,
        "queries_asked_for": queries,
        "queries_learned": len(learned.listed),
        "queries_without_label": learned.dropped,
        "negatives": dataset.NEGATIVES,
        "rows": len(learned.rows.label),
        "candidate_count": settings.candidate_count,
        "index_version": index,
        "fingerprint": fingerprint(),
        "trees": learned.fitted.trees,
        "ranker": learned.fitted.parameters,
        "missing": dict(zip(RANKED, np.isnan(learned.rows.features).mean(axis=0).tolist(), strict=True)),
    }  # fmt: skip


def _parameters(config: dict[str, Any]) -> dict[str, Any]:
    """What MLflow shows as parameters: single values, the ranker's own with their LightGBM names."""
    single = {name: value for name, value in config.items() if not isinstance(value, dict)}
    return {**single, **config["ranker"], **config["windows"]}


def _export(
    settings: Settings,
    tracked: tracking.Tracked,
    booster: lightgbm.Booster,
    served: evaluate.Evaluated,
    steps: Steps,
) -> float:
    """Export, gate, champion; what does not pass is taken out of the repository again."""
    kept = release.kept_rankers(ReleaseStore(settings.releases))
    with steps.step("export to Triton's repository"):
        folder = export.export(booster, settings.models, tracked.version)
        export.prune(settings.models, kept | {tracked.version})
    with steps.step("parity of LightGBM, treelite and Triton"):
        try:
            gap = parity.check(settings, booster, folder, tracked.version, served.features)
        except ReleaseError as error:
            export.withdraw(settings.models, tracked.version)
            tracking.refuse(settings, tracked, str(error))
            raise
        tracking.promote(settings, tracked, gap)
    return gap
