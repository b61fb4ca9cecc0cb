"""What a session x item feature means: one vectorised function, called by training, by serving and
by Feast's on-demand view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.candidates import SIGNALS, SOURCES, CandidateSet

Floats = npt.NDArray[np.float32]
CATALOGUE = ("category_id", "brand_id", "price")
"""Columns of `item_catalogue` that pair features are made from."""
ACTIVITY = ("views_7d",)
"""Columns of `item_activity` that they are made from."""
KNOWN = (*CATALOGUE, *ACTIVITY)


@dataclass(frozen=True)
class CatalogueColumns:
    """What is known of n items: ids int64 [n], 0 unknown; price, views_7d float32 [n], nan unknown."""

    category_id: npt.NDArray[np.int64]
    brand_id: npt.NDArray[np.int64]
    price: Floats
    views_7d: Floats

    @classmethod
    def of(cls, columns: Mapping[str, npt.ArrayLike]) -> CatalogueColumns:
        """From columns as a feature read gives them: missing ids (nan, None) become 0."""
        category, brand = (_ids(columns[name]) for name in ("category_id", "brand_id"))
        price, views = (np.asarray(columns[name], np.float32) for name in ("price", "views_7d"))
        return cls(category, brand, price, views)

    @classmethod
    def unknown(cls, count: int) -> CatalogueColumns:
        ids = np.zeros(count, dtype=np.int64)
        unknown = np.full(count, np.nan, dtype=np.float32)
        return cls(ids, ids, unknown, unknown)

    def take(self, index: npt.ArrayLike) -> CatalogueColumns:
        rows = np.asarray(index, dtype=np.intp)
        return CatalogueColumns(
            self.category_id[rows], self.brand_id[rows], self.price[rows], self.views_7d[rows]
        )


def pair_features(
    visited: Sequence[str],
    visited_catalogue: CatalogueColumns,
    candidates: CandidateSet,
    catalogue: CatalogueColumns,
) -> dict[str, Floats]:
    """The features of the view `session_item`, float32 [n candidates] each.

    visited: the visit's items, oldest first (`contracts.session.items_of`), and what is known of
    each of them at that moment; candidates and what is known of them.
    """
    columns: dict[str, Floats] = {}
    for index, source in enumerate(SOURCES):
        columns[f"{source}_score"] = candidates.scores[:, index]
        columns[f"{source}_rank"] = candidates.ranks[:, index]
    columns |= {name: candidates.signals[:, place] for place, name in enumerate(SIGNALS)}
    columns |= _agreement(candidates)
    columns |= _visits(visited, candidates.items)
    columns |= _likeness("category", visited_catalogue.category_id, catalogue.category_id)
    columns |= _likeness("brand", visited_catalogue.brand_id, catalogue.brand_id)
    columns |= _prices(visited_catalogue.price, catalogue.price)
    columns |= _popularity(visited_catalogue.views_7d, catalogue.views_7d)
    return columns


def _agreement(candidates: CandidateSet) -> dict[str, Floats]:
    found = ~np.isnan(candidates.ranks)
    best = np.where(found, candidates.ranks, np.inf).min(axis=1, initial=np.inf)
    return {
        "sources_found": found.sum(axis=1).astype(np.float32),
        "best_rank": np.where(np.isinf(best), np.nan, best).astype(np.float32),
    }


def _visits(visited: Sequence[str], items: Sequence[str]) -> dict[str, Floats]:
    counts: dict[str, int] = {}
    latest: dict[str, int] = {}
    followed: dict[str, int] = {}  # how often an item came after an earlier visit of the last one
    repeats, before = 0, None
    current = visited[-1] if visited else None
    for place, item in enumerate(visited):
        repeats += item in latest
        counts[item] = counts.get(item, 0) + 1
        latest[item] = place
        if before is not None and before == current:
            followed[item] = followed.get(item, 0) + 1
        before = item
    last = len(visited) - 1
    times, steps, after = (np.full(len(items), value, np.float32) for value in (0, np.nan, 0))
    for row, item in enumerate(items):
        if item in latest:  # few are
            times[row], steps[row] = counts[item], last - latest[item]
            after[row] = followed.get(item, 0)
    share = repeats / len(visited) if visited else np.nan
    return {
        "times_in_session": times,
        "steps_since_visited": steps,
        "followed_last": after,
        "repeat_share": np.full(len(items), share, dtype=np.float32),
    }


def _popularity(visited: Floats, candidate: Floats) -> dict[str, Floats]:
    last = visited[-1] if len(visited) else np.float32(np.nan)
    beside = np.log1p(candidate.astype(np.float64)) - np.log1p(np.float64(last))
    return {
        "last_views_7d": np.full(len(candidate), last, dtype=np.float32),
        "views_to_last": beside.astype(np.float32),
    }


def _likeness(
    what: str, visited: npt.NDArray[np.int64], candidate: npt.NDArray[np.int64]
) -> dict[str, Floats]:
    """nan where either side is unknown: "not the same" is a statement, "not known" another."""
    known = visited[visited != 0]
    unknown = candidate == 0
    same = (candidate == visited[-1]).astype(np.float32) if len(visited) and visited[-1] else None
    share = (candidate[:, None] == known).mean(axis=1, dtype=np.float32) if len(known) else None
    return {f"same_{what}": _masked(same, unknown), f"{what}_share": _masked(share, unknown)}


def _masked(values: Floats | None, unknown: npt.NDArray[np.bool_]) -> Floats:
    if values is None:
        return np.full(len(unknown), np.nan, dtype=np.float32)
    return np.where(unknown, np.float32(np.nan), values)


def _prices(visited: Floats, candidate: Floats) -> dict[str, Floats]:
    """Differences of logarithms in double precision, so that no order of summing shows."""
    past, now = _log(visited), _log(candidate)
    known = past[~np.isnan(past)]
    last = past[-1] if len(past) else np.nan
    mean = known.mean() if len(known) else np.nan
    return {
        "price_to_last": (now - last).astype(np.float32),
        "price_to_mean": (now - mean).astype(np.float32),
    }


def _log(prices: Floats) -> npt.NDArray[np.float64]:
    positive = np.where(prices > 0, prices, np.nan).astype(np.float64)
    return np.log(positive)


def _ids(values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    known = np.asarray(array, dtype=np.float64)  # None becomes nan; ids fit (features.text_id)
    return np.where(np.isnan(known), 0, known).astype(np.int64)
