"""What others would have answered, on the same queries: simple baselines and the package wsknn."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt

from training import baselines
from training.evaluation.shop import Shop
from training.history import Query
from training.metrics import mid_rank

Doubles = npt.NDArray[np.float64]
WSKNN_QUERIES = 1000
"""wsknn is pure Python: it is asked a sample."""
WSKNN_SESSIONS = 500
WSKNN_NEIGHBOURS = 100
LISTED = 100


def simple(shop: Shop, queries: Sequence[Query]) -> dict[str, Doubles]:
    """Ranks by popularity and by co-visitation with the last item; all items are ranked, but for the
    one that is looked at where the shop does not list it. Co-visitation never does: its pairs differ."""
    clicks = shop.before(shop.cutoff).select(["visit", "time", "item_id"])
    popularity = baselines.popularity(clicks, queries, shop.cutoff)
    if not shop.current:
        current = [query._replace(label=query.visited[-1]) for query in queries]
        above = baselines.popularity(clicks, current, shop.cutoff)
        popularity -= (above < popularity) + (above == popularity) / 2
    return {
        "popularity": popularity,
        "last_item_covisitation": baselines.covisitation(clicks, queries, shop.cutoff),
    }


def wsknn_ranks(
    shop: Shop, queries: Sequence[Query], report: Callable[[int, int], None]
) -> tuple[Doubles, dict[str, float]]:
    """Ranks by the public package wsknn (Moliński, "WSKNN: k-NN recommender for session-based data"),
    with its defaults but for more sessions and neighbours, and the newest of the sessions that share
    an item; and the seconds it took. It iterates over sets: items and sessions are numbers, which have
    the same order in every process."""
    import wsknn

    begun = time.monotonic()
    number: dict[str, int] = defaultdict(count().__next__)
    model = wsknn.fit(
        _sessions(shop, number), number_of_recommendations=LISTED, sampling_strategy="recent",
        number_of_neighbors=WSKNN_NEIGHBOURS, sample_size=WSKNN_SESSIONS,
    )  # fmt: skip
    fitted = time.monotonic()
    ranks = np.full(len(queries), np.inf)
    for row, query in enumerate(queries):
        visited = [number[item] for item in query.visited]
        # None where it knows none of the items
        found = (model.recommend([visited, list(range(len(visited)))]) if visited else None) or ()
        if not shop.current:
            found = [each for each in found if each[0] != visited[-1]]
        names = [name for name, _ in found]
        if (label := number[query.label]) in names:
            scores = np.array([score for _, score in found], dtype=np.float64)
            ranks[row] = mid_rank(scores, names.index(label))
        if row % 50 == 0:
            report(row, len(queries))
    seconds = {"fit": round(fitted - begun, 1), "recommend": round(time.monotonic() - fitted, 1)}
    return ranks, seconds


def _sessions(shop: Shop, number: Mapping[str, int]) -> dict[int, list[list[int]]]:
    """As wsknn takes them: session -> [items, times]."""
    return {
        visit: [
            [number[item] for item in shop.items[begin:end].tolist()],
            shop.times[begin:end].tolist(),
        ]
        for visit, (begin, end) in enumerate(pairwise(shop.starts.tolist()))
        if shop.times[end - 1] < shop.cutoff
    }
