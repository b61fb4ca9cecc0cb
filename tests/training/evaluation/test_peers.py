"""The public package beside us, where it has nothing to say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from contracts.settings import ROOT
from tests.training.evaluation import tables
from training.evaluation.files import session_table
from training.evaluation.peers import simple, wsknn_ranks
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


def test_as_served_wsknn_too_does_not_list_the_item_that_is_looked_at(tmp_path: Path) -> None:
    path = tables.write(tmp_path / "t.parquet", tables.sessions(200, 1), tables.sessions(20, 2))
    listed = []
    for current in (True, False):
        shop = session_table(path, current=current)
        asked = [Query("v", "s", shop.cutoff, ("i01",), item, shop.cutoff + 1) for item in ("i01", "i02")]  # fmt: skip
        ranks, _ = wsknn_ranks(shop, asked, lambda done, of: None)
        listed.append(ranks.tolist())
    assert listed[0][0] < listed[0][1]
    assert listed[1][0] == np.inf
    assert listed[1][1] == listed[0][1] - 1


SCRIPT = """
import sys
from pathlib import Path
from training.evaluation.files import session_table
from training.evaluation.peers import wsknn_ranks
shop = session_table(Path(sys.argv[1]))
queries = [shop.query(prefix) for prefix in shop.prefixes(shop.cutoff, 1 << 62)]
print(wsknn_ranks(shop, queries, lambda done, of: None)[0].tolist())
"""


def test_wsknn_says_the_same_in_every_process(tmp_path: Path) -> None:
    """It goes through sets, whose order of texts differs from process to process."""
    path = tables.write(tmp_path / "t.parquet", tables.sessions(700, 1), tables.sessions(40, 2))
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)], check=True, capture_output=True, timeout=100,
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1


def test_as_served_what_is_popular_is_listed_without_the_item_that_is_looked_at(
    tmp_path: Path,
) -> None:
    """a stands before b before c; d and e are equal; the train part is the week before."""
    train = [["a", "b", "c"], ["a", "b", "a"], ["a", "d"], ["b", "e"]]
    path = tables.write(tmp_path / "t.parquet", train, [["a", "b"]] * 4)
    asked = [("a", "b"), ("c", "b"), ("d", "e"), ("e", "a"), ("a", "unheard of")]
    ranks = []
    for current in (True, False):
        shop = session_table(path, current=current)
        queries = [Query("v", "s", shop.cutoff, (last,), label, shop.cutoff + 1) for last, label in asked]  # fmt: skip
        ranks.append(simple(shop, queries)["popularity"].tolist())
    assert ranks[0] == [2, 2, 4, 1, np.inf]
    assert ranks[1] == [1, 2, 3.5, 1, np.inf]
