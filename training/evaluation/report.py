"""An evaluation from its file to the document that is printed, kept and logged."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from contracts.errors import UsageError
from contracts.features import RANKED, fingerprint
from contracts.rules import Rules
from training.evaluation import peers, rules_cost
from training.evaluation.code import code_version
from training.evaluation.figures import Bootstrap, figures, lists_figures, shares
from training.evaluation.run import END, Evaluation, Fitted, Options, Prefix, Ranked, Report
from training.evaluation.segments import segments
from training.evaluation.shop import Shop
from training.evaluation.work import Work
from training.history import Query

BASELINES = {
    "sequential_rules": "sequential",
    "session_knn": "knn",
    "merged_without_ranker": "merged",
}
"""Methods that are the engine's own single sources, by the name that is printed."""
KEPT = frozenset({"learned", "seconds", "memory_mb", "peak_memory_mb"})
"""What is kept beside the ranks."""


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked beside its file and options. peer_queries: of the package wsknn, 0:
    it is left out."""

    peer_queries: int = peers.WSKNN_QUERIES
    rules: Rules | None = None


def evaluate_shop(
    shop: Shop, options: Options, asked: Asked, folder: Path, report: Report,
    vectors: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All figures. folder: finished stages are kept there and read again; vectors: where the encoders
    are, which runs with other options may share (`encoder_digest`)."""
    run = Evaluation(shop, options, folder, report, vectors)
    work = Work(folder)
    prefixes = shop.prefixes(shop.cutoff, END)
    if not prefixes:
        raise UsageError(
            f"{shop.name}: no visit of the test part has a next click; see --test-days, or the split"
        )
    fitted: Fitted | None = None
    found = work.ranked()
    if found is None or not _usable(*found, len(prefixes)):
        fitted = run.fit()
        found = run.rank(fitted, prefixes), {"learned": _learned(fitted), **_used(run)}
        work.keep_ranked(*found)
    ranked, kept = found
    queries = [shop.query(prefix) for prefix in prefixes]
    document = _figures(shop, run, ranked, queries, prefixes, asked, work)
    if asked.rules is not None:
        fitted = fitted or run.fit()
        with run.stages.stage("cost of the rules"):
            document["rules"] = rules_cost.cost(run, fitted, prefixes, asked.rules)
    used = _used(run)  # a stage that an earlier run finished keeps what it took there
    seconds = kept["seconds"] | used["seconds"]
    return {
        **document,
        "learned": kept["learned"],
        "options": _options(options),
        "seconds": seconds,
        "seconds_in_all": round(sum(seconds.values()), 1),
        "memory_mb": kept["memory_mb"] | used["memory_mb"],
        "peak_memory_mb": max(kept["peak_memory_mb"], used["peak_memory_mb"]),
        "versions": _versions(),
    }


def _usable(ranked: Ranked, kept: dict[str, Any], prefixes: int) -> bool:
    """Whether what a folder holds is that of a finished run over as many prefixes."""
    arrays: list[Sized] = [ranked.lists, *ranked.ranks.values(), *ranked.recalled.values()]
    return (
        all(len(array) == prefixes for array in arrays)
        and kept.keys() >= KEPT
        and all(isinstance(kept[name], dict) for name in KEPT - {"peak_memory_mb"})
        and isinstance(kept["peak_memory_mb"], int | float)
    )


def _used(run: Evaluation) -> dict[str, Any]:
    return {
        "seconds": dict(run.stages.seconds),
        "memory_mb": dict(run.stages.megabytes),
        "peak_memory_mb": _peak(),
    }


def _figures(
    shop: Shop, run: Evaluation, ranked: Ranked, queries: Sequence[Query],
    prefixes: Sequence[Prefix], asked: Asked, work: Work,
) -> dict[str, Any]:  # fmt: skip
    sessions = np.array([first for first, _ in prefixes], dtype=np.int64)
    bootstrap = Bootstrap(sessions)
    clicks = shop.train_clicks()
    with run.stages.stage("baselines"):
        simple = peers.simple(shop, queries)
    with run.stages.stage("figures and intervals"):
        baselines = {name: figures(ranks, bootstrap) for name, ranks in simple.items()}
        baselines |= {
            name: figures(ranked.ranks[source], bootstrap)
            for name, source in BASELINES.items()
            if source in ranked.ranks
        }
        parts = segments(queries, clicks, _returning(shop))
        labels = _numbers(ranked.items, [query.label for query in queries])
        counts = np.array([clicks.get(item, 0) for item in ranked.items], dtype=np.float64)
        document: dict[str, Any] = {
            "dataset": shop.name,
            "prefixes": len(queries),
            "rows_left_out": dict(shop.left_out),
            "days": _days(shop),
            "current_item_listed": shop.current,
            "labels_that_are_the_current_item": sum(
                query.visited[-1:] == (query.label,) for query in queries
            ),
            "sessions": len(np.unique(sessions)),
            "items": len(ranked.items),
            "train_events": int(np.count_nonzero(shop.times < shop.cutoff)),
            **figures(ranked.ranks["ranker"], bootstrap),
            "recall@100": shares(ranked.recalled, bootstrap),
            "lists": lists_figures(ranked.lists, labels, counts, bootstrap),
            "baselines": baselines,
            "segments": {
                name: {
                    "prefixes": int(chosen.sum()),
                    "share": round(float(chosen.mean()), 4),
                    **figures(ranked.ranks["ranker"], bootstrap, chosen),
                }
                for name, chosen in parts.items()
            },
        }
    if asked.peer_queries:
        document["baselines"]["wsknn"] = _wsknn(
            shop, run, ranked, queries, sessions, asked.peer_queries, work
        )
    return document


def _days(shop: Shop) -> dict[str, str]:
    """First day, first of the test part, and last (UTC): a wrong clock shows. {} for a session table,
    whose times are made up."""
    if shop.catalogue is None:
        return {}
    moments = {"first": shop.first, "test_from": shop.cutoff, "last": int(shop.times.max())}
    return {
        name: f"{datetime.fromtimestamp(moment / 1000, UTC):%Y-%m-%d}"
        for name, moment in moments.items()
    }


def _wsknn(
    shop: Shop, run: Evaluation, ranked: Ranked, queries: Sequence[Query],
    sessions: np.ndarray[Any, np.dtype[np.int64]], count: int, work: Work,
) -> dict[str, Any]:  # fmt: skip
    """The peer on a sample, and ours on the same sample."""
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(queries), min(count, len(queries)), replace=False))
    with run.stages.stage("the peer wsknn") as progress:
        kept = work.peer(len(chosen))
        if kept is None:
            kept = peers.wsknn_ranks(shop, [queries[row] for row in chosen], progress)
            work.keep_peer(*kept)
    ranks, seconds = kept
    bootstrap = Bootstrap(sessions[chosen])
    return {
        "prefixes": len(chosen),
        **figures(ranks, bootstrap),
        "ours_on_the_same": figures(ranked.ranks["ranker"][chosen], bootstrap),
        "seconds": seconds,
    }


def _returning(shop: Shop) -> frozenset[str]:
    """Visits whose session had a visit before."""
    seen: set[str] = set()
    found = []
    order = np.argsort(shop.times[shop.starts[:-1]], kind="stable")
    for visit in order.tolist():
        begin = int(shop.starts[visit])
        session = str(shop.events["session_id"][begin].as_py())
        if session in seen:
            found.append(shop.visit_of(begin))
        seen.add(session)
    return frozenset(found)


def _numbers(items: Sequence[str], names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    number = {item: place for place, item in enumerate(items)}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)


def _learned(fitted: Fitted) -> dict[str, Any]:
    booster = fitted.ranker.booster
    gain = booster.feature_importance("gain")
    order = np.argsort(-gain, kind="stable")
    return {
        "label_windows": len(fitted.windows),
        "queries": fitted.learned,
        "trees": fitted.ranker.trees,
        "validation_ndcg@20": round(fitted.ranker.ndcg, 5),
        "ranker": fitted.ranker.parameters,
        "sources": {name: dict(values) for name, values in fitted.parameters.items()},
        "index": fitted.index.version,
        "model": hashlib.sha256(booster.model_to_string().encode()).hexdigest()[:16],
        "importance": {RANKED[place]: round(float(gain[place]), 1) for place in order[:40]},
    }


def _options(options: Options) -> dict[str, Any]:
    return {**asdict(options), "without": sorted(options.without), "fingerprint": fingerprint()}


def _peak() -> float:
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024, 1)


def _versions() -> dict[str, str]:
    names = ("numpy", "numba", "lightgbm", "faiss-cpu", "jax", "wsknn")
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "cores": str(psutil.cpu_count()),
        **{name: _version(name) for name in names},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "not installed"


def digest(path: Path, options: Options, more: Any = "") -> str:
    """Names the folder of a run: file, options, code and packages, whose figures are their own."""
    return _digest(path, [_options(options), more])


def encoder_digest(path: Path, options: Options, more: Any = "") -> str:
    """Names the folder of the encoders: file, how they are learned, and by what."""
    return _digest(path, [asdict(options.encoder), more])


def _digest(path: Path, more: Any) -> str:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps([content, _versions(), more], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
