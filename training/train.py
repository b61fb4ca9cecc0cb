"""The way of a model: from the offline tables to a release, gate by gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from candidate_service.build import build_for
from candidate_service.index import CandidateIndex
from contracts.errors import ReleaseError, UsageError
from contracts.features import RANKED, fingerprint
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from contracts.windows import WANTED_QUERIES, Windows
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
from training.encoder.step import learn_vectors
from training.history import Query
from training.tuning import Chosen, tune

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd

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
        taken = self.seconds.get(name, 0) + time.monotonic() - start
        self.seconds[name] = round(taken, 2)
        self.report(name, 1, 1)


@dataclass(frozen=True)
class Options:
    """queries: how many are learned from at most, over all label windows; tested: in the test window.
    embedding: whether the session encoder is learned. ranker: parameters of LightGBM that differ from
    the usual ones; label_weights: by what became of the label (`history.KINDS`)."""

    queries: int = WANTED_QUERIES
    tested: int = TESTED_QUERIES
    seed: int = 0
    embedding: bool = True
    ranker: Mapping[str, Any] = field(default_factory=dict)
    label_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Indexes:
    """Of each label window, the newest first, of the test window and of the release; and how their
    sources are asked and merged."""

    labels: tuple[CandidateIndex, ...]
    test: CandidateIndex
    whole: CandidateIndex
    parameters: Chosen


@dataclass(frozen=True)
class Learned:
    """A fitted ranker and what it learned from, window by window, the newest first."""

    fitted: ranker.Fitted
    rows: tuple[Rows, ...]
    listed: tuple[list[Listed], ...]
    dropped: int  # queries whose label was not among the candidates


@dataclass(frozen=True)
class Tested:
    metrics: dict[str, Any]
    served: evaluate.Evaluated


def train(
    settings: Settings,
    options: Options | None = None,
    *,
    report: Report = lambda step, done, of: None,  # noqa: ARG005
) -> TrainingResult:
    """Train on the label windows, test on the last window, and make a release that passed the gates.

    The release is not live by that: `release.check_release`, then `ReleaseStore.activate`.
    UsageError where there is too little to learn from, ServiceError where MLflow or Triton is not
    up, ReleaseError where the served model does not say what LightGBM says.
    """
    options = options or Options()
    steps = Steps(report)
    with steps.step("look for MLflow and Triton"):
        tracking.require_mlflow(settings)
        parity.require_triton(settings)
    rules = release.rules_of(settings)
    windows = history.windows(settings, options.queries)
    learning, testing, asked = _queries(settings, windows, options)
    read = _reader(settings)
    if options.embedding:
        with steps.step("learn the session encoder") as progress:
            learn_vectors(settings, windows.cutoffs, report=progress)
    indexes = _indexes(settings, windows, learning, steps, options.embedding)
    learned = _learn(learning, indexes, settings.candidate_count, read, options, steps)
    result = _test(settings, testing, asked, indexes.test, windows, learned, read, steps)
    config = _configuration(settings, windows, learned, indexes, options)
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
            settings, tracked=tracked, index_version=indexes.whole.version, metrics=result.metrics,
            gap=gap, served=result.served, rules=rules,
        )  # fmt: skip
    return TrainingResult(made, result.metrics, steps.seconds, rows)


def label_rows(
    settings: Settings, options: Options, report: Report
) -> tuple[tuple[Rows, ...], tuple[list[str], ...]]:
    """Rows of the label windows, the newest first, and what became of each query's label: what a
    search learns from."""
    steps = Steps(report)
    windows = history.windows(settings, options.queries)
    learning, _, _ = _queries(settings, windows, options)
    if options.embedding:
        with steps.step("learn the session encoder") as progress:
            learn_vectors(settings, windows.cutoffs, report=progress)
    indexes = _indexes(settings, windows, learning, steps, options.embedding)
    rows, listed = _rows(
        learning, indexes, settings.candidate_count, _reader(settings), options, steps
    )
    return rows, tuple([entry.query.kind for entry in part] for part in listed)


def _queries(
    settings: Settings, windows: Windows, options: Options
) -> tuple[list[list[Query]], list[Query], int]:
    """Queries to learn from by window, and to test on, and how many the test window has."""
    learning = [history.queries(settings, start, end) for start, end in windows.labels]
    testing = history.queries(settings, windows.test_start, windows.end)
    for what, found in (("label", sum(map(len, learning))), ("test", len(testing))):
        if found < ranker.MIN_QUERIES:
            raise UsageError(
                f"the {what} window has {found} next clicks, training needs at least"
                f" {ranker.MIN_QUERIES}: import more history (./nextclick data import), or"
                " generate a larger shop (./nextclick data generate)"
            )
    share = min(1.0, options.queries / sum(map(len, learning)))
    chosen = [
        history.sample(part, max(1, int(len(part) * share)), options.seed) for part in learning
    ]
    return chosen, history.sample(testing, options.tested, options.seed), len(testing)


def _indexes(
    settings: Settings, windows: Windows, learning: Sequence[Sequence[Query]], steps: Steps,
    embedding: bool,
) -> Indexes:  # fmt: skip
    """The newest label window's index says how this shop's sources are asked best; the others are
    built to be asked so."""

    def built(cutoff: int, parameters: Chosen) -> CandidateIndex:
        manifest = build_for(settings, cutoff, parameters=parameters, embedding=embedding)
        return CandidateIndex.load(settings.indexes / manifest.version)

    starts = [start for start, _ in windows.labels]
    with steps.step("build candidate indexes") as progress:
        newest = built(starts[0], {})
        progress(1, len(windows.cutoffs))
    with steps.step("tune the sources") as progress:
        parameters = tune(newest, learning[0], settings.candidate_count, report=progress)
    with steps.step("build candidate indexes") as progress:
        found = []
        for cutoff in (*starts[1:], windows.test_start, windows.end):
            found.append(built(cutoff, parameters))
            progress(1 + len(found), len(windows.cutoffs))
    labels = (newest.asked_with(parameters), *found[:-2])
    return Indexes(labels, found[-2], found[-1], parameters)


def _reader(settings: Settings) -> FeatureReader:
    """Point-in-time retrieval through Feast's historical path."""
    from feast_engine.historical import stored_features
    from feast_engine.store import open_store

    store = open_store(settings)

    def read(entities: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
        return stored_features(entities, store, views)

    return read


def _learn(
    learning: Sequence[Sequence[Query]],
    indexes: Indexes,
    count: int,
    read: FeatureReader,
    options: Options,
    steps: Steps,
) -> Learned:
    rows, listed = _rows(learning, indexes, count, read, options, steps)
    with steps.step("fit the ranker"):
        fitted = ranker.fit(rows, options.seed, options.ranker)
    return Learned(fitted, rows, listed, sum(map(len, learning)) - sum(map(len, listed)))


def _rows(
    learning: Sequence[Sequence[Query]],
    indexes: Indexes,
    count: int,
    read: FeatureReader,
    options: Options,
    steps: Steps,
) -> tuple[tuple[Rows, ...], tuple[list[Listed], ...]]:
    """Rows and what they were made of, of each label window in which some label is a candidate."""
    rows: list[Rows] = []
    listed: list[list[Listed]] = []
    for queries, index in zip(learning, indexes.labels, strict=True):
        with steps.step("candidates of the label windows"):
            found = dataset.with_negatives(dataset.propose(queries, index, count), options.seed)
        if found:
            with steps.step("features of the label windows"):
                rows.append(dataset.rows_of(found, read, options.label_weights))
                listed.append(found)
    if not rows:
        raise UsageError(
            f"no label of {sum(map(len, learning))} queries is among the candidates: the history"
            " before the label windows is too short, import more of it"
        )
    return tuple(rows), tuple(listed)


def _test(
    settings: Settings,
    queries: list[Query],
    asked: int,
    index: CandidateIndex,
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
    settings: Settings, windows: Windows, learned: Learned, indexes: Indexes, options: Options
) -> dict[str, Any]:
    features = np.concatenate([rows.features for rows in learned.rows])
    return {
        "windows": {
            "labels": [list(window) for window in windows.labels],
            "test_start": windows.test_start, "end": windows.end,
        },
        "seed": options.seed,
        "queries_asked_for": options.queries,
        "queries_learned": sum(map(len, learned.listed)),
        "queries_without_label": learned.dropped,
        "negatives": dataset.NEGATIVES,
        "rows": len(features),
        "candidate_count": settings.candidate_count,
        "index_version": indexes.whole.version,
        "embedding": indexes.whole.manifest.vectors > 0,
        "fingerprint": fingerprint(),
        "trees": learned.fitted.trees,
        "label_weights": dict(options.label_weights),
        "ranker": learned.fitted.parameters,
        "sources": indexes.whole.manifest.parameters,
        "missing": dict(zip(RANKED, np.isnan(features).mean(axis=0).tolist(), strict=True)),
    }  # fmt: skip


def _parameters(config: dict[str, Any]) -> dict[str, Any]:
    """What MLflow shows as parameters: single values, the ranker's own with their LightGBM names."""
    single = {name: value for name, value in config.items() if not isinstance(value, dict)}
    return {**single, **config["ranker"], "label_windows": len(config["windows"]["labels"])}


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
