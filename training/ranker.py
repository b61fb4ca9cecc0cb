"""The ranker: LightGBM's LambdaRank on the rows of the label window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import UsageError
from contracts.features import RANKED
from training.dataset import Rows

if TYPE_CHECKING:
    import lightgbm

LATER = 0.2
"""Share of the label window's queries, the latest ones, that decide the number of trees."""
MAX_TREES = 300
PATIENCE = 25
"""Trees without a better NDCG@20 after which the search for their number ends."""
FEW_ROWS = 50_000
"""Below this, threads wait for one another longer than they work."""
MIN_QUERIES = 50
"""Fewer queries than this teach no order worth serving."""


@dataclass(frozen=True)
class Fitted:
    """`ndcg` is that of the later queries, over label and negatives, at the number of trees kept."""

    booster: lightgbm.Booster
    trees: int
    ndcg: float
    parameters: dict[str, Any]


def parameters(rows: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters; a small shop gets smaller leaves."""
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [20],
        "lambdarank_truncation_level": 30,
        "learning_rate": 0.1,
        "num_leaves": 15,
        "min_data_in_leaf": min(100, max(5, rows // 500)),
        "feature_fraction": 0.5,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "zero_as_missing": False,  # treelite reads it another way
        "num_threads": 1 if rows < FEW_ROWS else 2,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def fit(rows: Rows, seed: int = 0) -> Fitted:
    """Rows of queries in order of time: the number of trees from the later ones, then all learn.

    UsageError when there are too few queries.
    """
    queries = len(rows.sizes)
    if queries < MIN_QUERIES:
        raise UsageError(
            f"{queries} queries have their label among the candidates, training needs at least"
            f" {MIN_QUERIES}: import more history, or generate a larger shop"
        )
    chosen = parameters(len(rows.label), seed)
    split = int(queries * (1 - LATER))
    trees, ndcg = _number_of_trees(rows.part(0, split), rows.part(split, queries), chosen)
    return Fitted(_train(rows, chosen, trees), trees, ndcg, chosen)


def _number_of_trees(earlier: Rows, later: Rows, chosen: dict[str, Any]) -> tuple[int, float]:
    import lightgbm

    learn = _dataset(earlier)
    searched = lightgbm.train(
        chosen,
        learn,
        num_boost_round=MAX_TREES,
        valid_sets=[_dataset(later, learn)],
        valid_names=["later"],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return searched.best_iteration, float(searched.best_score["later"]["ndcg@20"])


def _train(rows: Rows, chosen: dict[str, Any], trees: int) -> lightgbm.Booster:
    import lightgbm

    return lightgbm.train(chosen, _dataset(rows), num_boost_round=trees)


def _dataset(rows: Rows, reference: Any = None) -> lightgbm.Dataset:
    import lightgbm

    return lightgbm.Dataset(
        np.ascontiguousarray(rows.features),
        label=rows.label,
        group=rows.sizes,
        reference=reference,
        feature_name=list(RANKED),
        free_raw_data=True,
    )
