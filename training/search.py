"""The search of hyper-parameters: Optuna over the ranker's and the labels' parameters.

Trials are judged on the newest label window of the train part, never on the test part: rows are
made once, each trial learns from the older ones (`training.ranker.validation_split`). Akiba, Sano,
Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from training import ranker
from training.dataset import Rows
from training.metrics import hit_rate, mid_rank, mrr, ndcg
from training.search_space import Choices, Range, Space, limits_of, split

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Budget:
    trials: int = 30
    seconds: float = 600.0


@dataclass(frozen=True)
class Trial:
    parameters: Mapping[str, Any]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """The trials in the order in which they were made, the usual parameters first, and the best;
    refused: what LightGBM said of trials that it would not learn; judged: queries that judge."""

    trials: tuple[Trial, ...]
    best: Trial
    stopped: str
    judged: int
    refused: tuple[str, ...] = ()

    def as_file(self) -> dict[str, Any]:
        """What `nextclick train --parameters` takes."""
        return split(self.best.parameters)


def search(
    windows: Sequence[Rows], kinds: Sequence[Sequence[str]], space: Space, budget: Budget,
    seed: int = 0, report: Report = lambda done, of: None,  # noqa: ARG005
) -> Found:  # fmt: skip
    """windows: rows of the label windows, the newest first; kinds: of each query's label there.

    Ends with the budget, or where it is interrupted from the keyboard; what was found stays. A trial
    that LightGBM refuses, as for two parameters that do not agree, counts in the budget. UsageError
    where there is too little to judge by.
    """
    import lightgbm
    import optuna

    judged = len(ranker.validation_split(windows)[1].sizes)
    ranker.check_queries(judged, "to judge trials by")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    trials, refused = [_tried(windows, kinds, {}, seed)], list[str]()
    begun, stopped = time.monotonic(), "budget"
    try:
        for done in range(1, budget.trials + 1):
            if time.monotonic() - begun >= budget.seconds:
                break
            asked = study.ask()
            parameters = {name: _suggested(asked, name, of) for name, of in space.items()}
            try:
                trials.append(_tried(windows, kinds, parameters, seed))
                study.tell(asked, trials[-1].figures["ndcg_20"])
            except lightgbm.basic.LightGBMError as error:
                refused.append(f"{parameters}: {error}")
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
            report(done, budget.trials)
    except KeyboardInterrupt:
        stopped = "interrupted"
    best = max(trials, key=lambda trial: trial.figures["ndcg_20"])
    return Found(tuple(trials), best, stopped, judged, tuple(refused))


def _suggested(trial: Any, name: str, of: Range | Choices) -> Any:
    if not isinstance(of, Range):
        return trial.suggest_categorical(name, of)
    if limits_of(name).kind is int:
        return trial.suggest_int(name, int(of.low), int(of.high), log=of.log)
    return trial.suggest_float(name, of.low, of.high, log=of.log)


def _tried(
    windows: Sequence[Rows],
    kinds: Sequence[Sequence[str]],
    parameters: Mapping[str, Any],
    seed: int,
) -> Trial:
    parts = split(parameters)
    weighted = [
        _weighted(rows, kind, parts["label_weights"])
        for rows, kind in zip(windows, kinds, strict=True)
    ]
    earlier, later = ranker.validation_split(weighted)
    begun = time.monotonic()
    booster, trees = ranker.stopped_early(earlier, later, seed, parts["ranker"])
    ranks = _ranks(later, booster.predict(later.features, num_iteration=trees))
    figures = {
        "ndcg_20": ndcg(ranks, 20),
        "mrr_20": mrr(ranks, 20),
        "hit_rate_20": hit_rate(ranks, 20),
    }
    return Trial(
        dict(parameters), {**figures, "trees": float(trees), "seconds": time.monotonic() - begun}
    )


def _weighted(rows: Rows, kinds: Sequence[str], weights: Mapping[str, float]) -> Rows:
    return replace(
        rows, weight=np.array([weights.get(kind, 1.0) for kind in kinds], dtype=np.float32)
    )


def _ranks(
    rows: Rows, scores: np.ndarray[Any, np.dtype[np.float64]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    ends = np.cumsum(rows.sizes)
    return np.array(
        [
            mid_rank(scores[end - size : end], int(np.argmax(rows.label[end - size : end])))
            for size, end in zip(rows.sizes, ends, strict=True)
        ]
    )
