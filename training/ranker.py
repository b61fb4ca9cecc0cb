"""The ranker: LightGBM's LambdaRank on the rows of the label window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError
from contracts.features import RANKED
from training.dataset import Rows, joined

if TYPE_CHECKING:
    import lightgbm

Floats = npt.NDArray[np.float64]
LATER = 0.2
"""Share of the newest label window's queries, the latest ones, that decide the number of trees where
there are no other windows to learn from."""
MAX_TREES = 400
PATIENCE = 50
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
        "metric": "None",  # `_ndcg`: LightGBM's own takes equal scores in the order of the rows
        "lambdarank_truncation_level": 20,
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


def fit(windows: Sequence[Rows], seed: int = 0, given: Mapping[str, Any] | None = None) -> Fitted:
    """Rows of label windows, the newest first, each window's queries in order of time.

    The number of trees comes from the newest window, of a single one from its later queries; then
    all learn. given: LightGBM's parameters that differ from `parameters`.
    UsageError when there are too few queries, or LightGBM refuses what is given.
    """
    check_queries(sum(len(rows.sizes) for rows in windows))
    rows = joined(list(reversed(windows)))
    import lightgbm

    chosen = parameters(len(rows.label), seed) | dict(given or {})
    try:
        trees, ndcg = _number_of_trees(*validation_split(windows), chosen)[1:]
        return Fitted(_train(rows, chosen, trees), trees, ndcg, chosen)
    except lightgbm.basic.LightGBMError as error:
        raise UsageError(f"LightGBM takes no ranker with {dict(given or {})}: {error}") from None


def check_queries(count: int, what: str = "to learn from") -> None:
    """UsageError where these queries, their label among the candidates, are too few."""
    if count < MIN_QUERIES:
        raise UsageError(
            f"{count} queries {what} have their label among the candidates, at least {MIN_QUERIES} are"
            " needed: import more history, or generate a larger shop"
        )


def validation_split(windows: Sequence[Rows]) -> tuple[Rows, Rows]:
    """What is learned from and what decides: the newest window, or the later queries of the only
    one; of these too where the older windows have fewer queries than the newest."""
    newest, older = windows[0], windows[1:]
    split = int(len(newest.sizes) * (1 - LATER))
    if sum(len(rows.sizes) for rows in older) >= len(newest.sizes):
        return joined(list(reversed(older))), newest
    earlier = joined([*reversed(older), newest.part(0, split)])
    return earlier, newest.part(split, len(newest.sizes))


def stopped_early(
    earlier: Rows, later: Rows, seed: int, given: Mapping[str, Any]
) -> tuple[lightgbm.Booster, int]:
    """A booster of the earlier rows, and the trees at which it is best on the later ones."""
    chosen = parameters(len(earlier.label), seed) | dict(given)
    booster, trees, _ = _number_of_trees(earlier, later, chosen)
    return booster, trees


def _number_of_trees(
    earlier: Rows, later: Rows, chosen: dict[str, Any]
) -> tuple[lightgbm.Booster, int, float]:
    import lightgbm

    learn = _dataset(earlier)
    searched = lightgbm.train(
        chosen,
        learn,
        num_boost_round=MAX_TREES,
        valid_sets=[_dataset(later, learn)],
        valid_names=["later"],
        feval=_ndcg(later),
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    return searched, searched.best_iteration, float(searched.best_score["later"]["ndcg@20"])


def _ndcg(rows: Rows) -> Callable[[Floats, Any], tuple[str, float, bool]]:
    """NDCG@20 as `training.metrics` has it, equal scores sharing the middle of their places: rows
    stand in the order of the merge, and a ranker that knows nothing would get that for its own."""
    starts = np.concatenate(([0], np.cumsum(rows.sizes)[:-1])).astype(np.intp)
    labels = np.flatnonzero(rows.label)  # one a query

    def gain(scores: Floats, _: Any) -> tuple[str, float, bool]:
        own = np.repeat(scores[labels], rows.sizes)
        above = np.add.reduceat(scores > own, starts, dtype=np.int64)
        equal = np.add.reduceat(scores == own, starts, dtype=np.int64)
        ranks = above + (equal + 1) / 2
        gains = np.where(ranks <= 20, 1 / np.log2(ranks + 1), 0)
        return "ndcg@20", float(np.average(gains, weights=rows.weight)), True

    return gain


def _train(rows: Rows, chosen: dict[str, Any], trees: int) -> lightgbm.Booster:
    import lightgbm

    return lightgbm.train(chosen, _dataset(rows), num_boost_round=trees)


def _dataset(rows: Rows, reference: Any = None) -> lightgbm.Dataset:
    import lightgbm

    return lightgbm.Dataset(
        np.ascontiguousarray(rows.features),
        label=rows.label,
        group=rows.sizes,
        weight=np.repeat(rows.weight, rows.sizes) if (rows.weight != 1).any() else None,
        reference=reference,
        feature_name=list(RANKED),
        free_raw_data=True,
    )
