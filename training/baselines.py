"""What the ranker has to beat: the rank of each query's label by two rules that learn nothing.

Both see the clicks before a cut-off only and rank every item of the shop.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from training.history import Query
from training.metrics import Ranks

if TYPE_CHECKING:
    import pyarrow as pa

POPULAR_MS = timedelta(days=7) // timedelta(milliseconds=1)

POPULARITY = """
    SELECT '' AS given, item_id, count(*) AS n FROM clicks GROUP BY item_id
"""
# how many visits held both items; only what some query asks for is counted
COVISITATION = """
    WITH held AS (SELECT DISTINCT visit, item_id FROM clicks)
    SELECT a.item_id AS given, b.item_id, count(*) AS n
    FROM held a JOIN held b ON a.visit = b.visit AND a.item_id <> b.item_id
    WHERE a.item_id IN (SELECT given FROM asked)
    GROUP BY ALL
"""
# equal counts share the middle of their places (training.metrics)
RANKS = """
    WITH counts AS ({counts}),
    ranked AS (
        SELECT given, item_id, rank() OVER (PARTITION BY given ORDER BY n DESC)
            + (count(*) OVER (PARTITION BY given, n) - 1) / 2 AS place
        FROM counts
    )
    SELECT asked.query, place FROM asked JOIN ranked
    ON ranked.given = asked.given AND ranked.item_id = asked.label
"""


def popularity(clicks: pa.Table, queries: Sequence[Query], cutoff: int) -> Ranks:
    """By number of clicks in the seven days before the cut-off."""
    recent = _between(clicks, cutoff - POPULAR_MS, cutoff)
    return _ranks(POPULARITY, recent, [""] * len(queries), queries)


def covisitation(clicks: pa.Table, queries: Sequence[Query], cutoff: int) -> Ranks:
    """By number of visits that held the item and the last one visited; nothing where none was."""
    last = [query.visited[-1] if query.visited else "" for query in queries]
    return _ranks(COVISITATION, _between(clicks, 0, cutoff), last, queries)


def _between(clicks: pa.Table, start: int, end: int) -> pa.Table:
    import pyarrow.compute as pc

    time = clicks["time"]
    return clicks.filter(pc.and_(pc.greater_equal(time, start), pc.less(time, end)))


def _ranks(counts: str, clicks: pa.Table, given: list[str], queries: Sequence[Query]) -> Ranks:
    """Ranks [queries]; infinity where the rule never counted the label.

    clicks: columns visit, time, item_id; given: what the rule starts from, one a query.
    """
    import duckdb
    import pyarrow as pa

    labels = [query.label for query in queries]
    asked = pa.table({"query": range(len(queries)), "given": given, "label": labels})
    with duckdb.connect() as connection:
        connection.register("clicks", clicks)
        connection.register("asked", asked)
        found = connection.execute(RANKS.format(counts=counts)).fetchnumpy()
    ranks = np.full(len(queries), np.inf)
    ranks[found["query"]] = found["place"]
    return ranks
