"""The public package beside us, where it has nothing to say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.evaluation import tables
from training.evaluation.files import session_table
from training.evaluation.peers import wsknn_ranks
from training.history import Query


def test_a_visit_of_which_wsknn_knows_no_item_is_a_miss(tmp_path: Path) -> None:
    train, test = tables.sessions(200, 1), tables.sessions(20, 2)
    shop = session_table(tables.write(tmp_path / "t.parquet", train, test))
    queries = [
        Query("v", "s", shop.cutoff, visited, "i02", shop.cutoff + 1)
        for visited in (("unheard of",), (), ("i01",))
    ]
    ranks, _ = wsknn_ranks(shop, queries, lambda done, of: None)
    assert np.isinf(ranks[:2]).all()
    assert np.isfinite(ranks[2])
