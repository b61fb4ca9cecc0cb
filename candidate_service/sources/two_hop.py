"""What is visited with what is visited with this item: items that no visit held together.

The linear graph filter of Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM
2021 (GF-CF), which is what LightGCN's two layers without training come to, over the graph of items
that were visited near one another. Both ends of an edge are normalised: dividing by the row alone, as
a random walk does, leads to what is popular.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from candidate_service.history import History
from candidate_service.source import Parameters
from candidate_service.tables import Pairs, TableSource, table, visited_near

BLOCK = 2048
"""Rows of the product that are held at once: it is far denser than its factors."""


class TwoHop(TableSource):
    """weight = the square of D^-1/2 C D^-1/2, where C is `tables.visited_near`, older clicks counting
    less, and D has the sums of its rows."""

    name = "two_hop"
    defaults: ClassVar[Parameters] = {
        **TableSource.defaults,
        "weight": 2.0,
        "neighbours": 200.0,
        "gap": 10.0,
        "reach": 2.0,
    }

    @classmethod
    def pairs(cls, history: History, parameters: Parameters) -> Pairs:
        near = visited_near(history, parameters)
        degree = np.sqrt(np.bincount(near.row, near.value, minlength=history.items))
        edges = near.with_values(
            near.value / np.maximum(degree[near.row] * degree[near.column], 1e-9)
        )
        return _squared(edges, history.items, int(parameters["neighbours"]))


def _squared(edges: Pairs, items: int, count: int) -> Pairs:
    """The strongest of each row of the matrix times itself."""
    from scipy.sparse import csr_array

    matrix = csr_array(
        (edges.value.astype(np.float32), (edges.row, edges.column)), shape=(items, items)
    )
    parts = []
    for start in range(0, items, BLOCK):
        block = (matrix[start : start + BLOCK] @ matrix).tocoo()
        kept = table(
            Pairs(block.row, block.col, block.data.astype(np.float64)), block.shape[0], count
        )
        row = start + np.repeat(np.arange(block.shape[0]), np.diff(kept["indptr"]))
        parts.append(
            Pairs(row.astype(np.int32), kept["neighbours"], kept["weights"].astype(np.float64))
        )
    return Pairs(*(np.concatenate(of) for of in zip(*parts, strict=True)))
