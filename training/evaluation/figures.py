"""What an evaluation prints: figures with their intervals, by method and by segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.metrics import CUTS

Doubles = npt.NDArray[np.float64]
RESAMPLES = 1000
BLOCK = 100
"""Resamples whose weights are held at once."""
NAMES = ("hit_rate", "mrr", "ndcg")
LEVEL = (2.5, 97.5)
LIST_RESAMPLES = 200
"""Of figures over all lists together, each of which counts them anew."""


class Bootstrap:
    """95 % intervals of means over queries, by resampling whole sessions: queries of one visit are
    not independent (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; clusters).

    sessions: the session of each query, int [q]. A resample draws as many sessions as there are, with
    replacement.
    """

    def __init__(self, sessions: npt.NDArray[np.int64], seed: int = 0) -> None:
        _, self._session = np.unique(sessions, return_inverse=True)
        self._count = int(self._session.max(initial=-1)) + 1
        self._seed = seed

    def intervals(self, columns: Doubles, chosen: npt.NDArray[np.bool_] | None = None) -> Doubles:
        """(low, high) [2, columns] of the means of `columns` [q, columns] over the chosen queries,
        one or more."""
        chosen = np.ones(len(columns), dtype=bool) if chosen is None else chosen
        sums = np.zeros((self._count, columns.shape[1] + 1))
        np.add.at(sums[:, :-1], self._session[chosen], columns[chosen])
        np.add.at(sums[:, -1], self._session[chosen], 1.0)
        rng = np.random.default_rng(self._seed)
        means = []
        for _ in range(0, RESAMPLES, BLOCK):
            drawn = rng.multinomial(self._count, np.full(self._count, 1 / self._count), size=BLOCK)
            total = drawn @ sums
            drawn_any = total[:, -1] > 0  # few visits are in no resample but some
            means.append(total[drawn_any, :-1] / total[drawn_any, -1:])
        low, high = np.percentile(np.concatenate(means), LEVEL, axis=0)
        return np.stack([low, high])

    def weights(self, resamples: int) -> Iterator[Doubles]:
        """How often each query is in a resample, [q]."""
        rng = np.random.default_rng(self._seed)
        for _ in range(resamples):
            drawn = rng.integers(self._count, size=self._count)
            yield np.bincount(drawn, minlength=self._count)[self._session].astype(np.float64)


def gains(ranks: Doubles) -> tuple[list[str], Doubles]:
    """Names as they are printed, and what each query adds to their mean, [q, names]."""
    names = [f"{name}@{cut}" for name in NAMES for cut in CUTS]
    columns = [_gain(name, ranks, cut) for name in NAMES for cut in CUTS]
    return names, np.stack(columns, axis=1)


def _gain(name: str, ranks: Doubles, cut: int) -> Doubles:
    listed = ranks <= cut
    if name == "mrr":
        return np.where(listed, 1 / ranks, 0.0)
    if name == "ndcg":
        return np.where(listed, 1 / np.log2(ranks + 1), 0.0)
    return listed.astype(np.float64)


def figures(
    ranks: Doubles, bootstrap: Bootstrap, chosen: npt.NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """`hit_rate@10` ... `ndcg@20` of the chosen queries, each as {value, low, high}."""
    names, columns = gains(ranks)
    chosen = np.ones(len(ranks), dtype=bool) if chosen is None else chosen
    if not chosen.any():
        return {}
    means, bounds = columns[chosen].mean(axis=0), bootstrap.intervals(columns, chosen)
    return {name: _interval(means[place], bounds[:, place]) for place, name in enumerate(names)}


def shares(flags: Mapping[str, npt.NDArray[np.bool_]], bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of queries for which each flag holds, as {value, low, high}."""
    columns = np.stack([flag.astype(np.float64) for flag in flags.values()], axis=1)
    bounds = bootstrap.intervals(columns)
    means = columns.mean(axis=0)
    return {name: _interval(means[place], bounds[:, place]) for place, name in enumerate(flags)}


def _interval(value: float, bounds: Sequence[float] | Doubles) -> dict[str, float]:
    return {
        "value": round(float(value), 5),
        "low": round(float(bounds[0]), 5),
        "high": round(float(bounds[1]), 5),
    }


def lists_figures(
    lists: npt.NDArray[np.int32],
    labels: npt.NDArray[np.int64],
    clicks: Doubles,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Coverage and popularity bias of lists [q, k] of item numbers, -1 beyond the end.

    clicks: how often each item was clicked in the train part, [items]. `coverage`: share of the
    items that stand in any list; `popularity_percentile`: mean place of a listed item among the
    items by clicks, 1 the most clicked, beside that of the labels that are known; `gini`: how unevenly lists share
    their places among items, 0 evenly, 1 all on one.
    """
    order = np.empty(len(clicks))
    order[np.argsort(clicks, kind="stable")] = (np.arange(len(clicks)) + 1) / len(clicks)
    listed = lists >= 0
    percentile = np.where(listed, order[np.maximum(lists, 0)], 0).sum(axis=1) / np.maximum(
        listed.sum(axis=1), 1
    )
    known = labels >= 0
    popular = {"popularity_percentile": (percentile, np.ones(len(lists), dtype=bool))}
    if known.any():
        popular["popularity_percentile_of_clicks"] = (order[np.maximum(labels, 0)], known)
    return {
        **_of_places(lists, len(clicks), bootstrap),
        **{
            name: _interval(
                column[chosen].mean(), bootstrap.intervals(column[:, None], chosen)[:, 0]
            )
            for name, (column, chosen) in popular.items()
        },
    }


def _of_places(
    lists: npt.NDArray[np.int32], items: int, bootstrap: Bootstrap
) -> dict[str, dict[str, float]]:
    """Coverage and Gini coefficient. A resample repeats visits, so it covers less by itself: what is
    taken from the resamples is how far they lie from their own mean."""
    listed = lists >= 0
    filled, shown = listed.sum(axis=1), lists[listed]

    def statistics(weights: Doubles) -> tuple[float, float]:
        counts = np.bincount(shown, np.repeat(weights, filled), minlength=items)
        return float((counts > 0).mean()), gini(counts)

    whole = np.array(statistics(np.ones(len(lists))))
    found = np.array([statistics(weights) for weights in bootstrap.weights(LIST_RESAMPLES)])
    low, high = np.clip(whole + np.percentile(found, LEVEL, axis=0) - found.mean(axis=0), 0, 1)
    return {
        name: _interval(whole[place], (low[place], high[place]))
        for place, name in enumerate(("coverage", "gini"))
    }


def gini(counts: npt.NDArray[np.int64] | Doubles) -> float:
    """Gini coefficient of non-negative counts."""
    ordered = np.sort(counts).astype(np.float64)
    if not ordered.sum():
        return 0.0
    place = np.arange(1, len(ordered) + 1)
    return float(
        2 * (place * ordered).sum() / (len(ordered) * ordered.sum())
        - (len(ordered) + 1) / len(ordered)
    )
