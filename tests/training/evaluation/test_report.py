"""The document of an evaluation: all that was asked for is in it, and a run that was cut goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.candidates import SOURCES
from contracts.rules import Rules
from tests.training.evaluation import tables
from training.evaluation import work
from training.evaluation.files import session_table
from training.evaluation.report import Asked, digest, evaluate_shop
from training.evaluation.run import Evaluation, Options

MEASURES = ("hit_rate@10", "hit_rate@20", "mrr@10", "mrr@20", "ndcg@10", "ndcg@20")


def no_report(step: str, done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    train, test = tables.sessions(tables.TRAIN, 1), tables.sessions(tables.TEST, 2)
    return tables.write(folder / "t.parquet", train, test)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def document(table: Path, folder: Path) -> dict[str, Any]:
    rules = Rules(exclude_current=False, exclude_seen=True)
    asked = Asked(peer_queries=30, rules=rules)
    found = evaluate_shop(session_table(table), tables.SMALL, asked, folder, no_report)
    whole: dict[str, Any] = json.loads(json.dumps(found, default=float))
    return whole


def interval(of: dict[str, float]) -> bool:
    return set(of) == {"value", "low", "high"} and of["low"] <= of["value"] <= of["high"]


def test_every_figure_has_its_interval(document: dict[str, Any]) -> None:
    assert all(interval(document[name]) for name in MEASURES)
    assert set(document["recall@100"]) == {*SOURCES, "merged"}
    assert all(interval(of) for of in document["recall@100"].values())
    lists = ("coverage", "popularity_percentile", "popularity_percentile_of_clicks")
    assert all(interval(document["lists"][name]) for name in lists)


def test_baselines_and_peers_stand_beside(document: dict[str, Any]) -> None:
    assert set(document["baselines"]) == {
        "popularity", "last_item_covisitation", "sequential_rules", "session_knn",
        "merged_without_ranker", "wsknn",
    }  # fmt: skip
    for of in document["baselines"].values():
        assert all(interval(of[name]) for name in MEASURES)
    assert document["baselines"]["wsknn"]["prefixes"] == 30
    ours = document["hit_rate@10"]["value"]
    assert ours > 2 * document["baselines"]["popularity"]["hit_rate@10"]["value"]


def test_segments_part_the_prefixes(document: dict[str, Any]) -> None:
    parts = document["segments"]
    lengths = [of["prefixes"] for name, of in parts.items() if name.startswith("length ")]
    assert sum(lengths) == document["prefixes"]
    both = parts["repeat item"]["prefixes"] + parts["item new to the session"]["prefixes"]
    assert both == document["prefixes"]


def test_seconds_and_memory_by_stage(document: dict[str, Any]) -> None:
    assert set(document["seconds"]) == set(document["memory_mb"])
    assert {"indexes", "fit the ranker", "rank the test part"} <= set(document["seconds"])
    assert document["peak_memory_mb"] >= max(document["memory_mb"].values()) > 0


def test_rules_that_leave_out_what_was_seen_cost_the_repeats(document: dict[str, Any]) -> None:
    cost = document["rules"]
    without, default, own = (
        cost[which]["ndcg@20"]["value"] for which in ("without", "default", "with")
    )
    assert without >= default > own > 0
    # of default rules too, and what they cost is not said of the file
    assert cost["cost_in_ndcg@20"] == pytest.approx(default - own, abs=1e-4)
    assert cost["effects"]["exclude_seen"] > 0
    assert "exclude_current" not in cost["effects"]


def test_a_run_that_was_ranked_is_not_fitted_again(
    table: Path, folder: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Evaluation) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Evaluation, "fit", never)
    again = evaluate_shop(session_table(table), tables.SMALL, Asked(30), folder, no_report)
    assert {name: again[name] for name in MEASURES} == {name: document[name] for name in MEASURES}
    assert again["learned"]["model"] == document["learned"]["model"]
    assert again["baselines"]["wsknn"]["seconds"] == document["baselines"]["wsknn"]["seconds"]
    assert set(document["seconds"]) - {"cost of the rules"} <= set(again["seconds"])


def test_a_stage_that_was_not_finished_is_done_again(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = work.Work(tmp_path)
    assert kept.ranked() is None

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_shop(session_table(table), tables.SMALL, Asked(0), tmp_path, no_report)
    assert kept.ranked() is None
    found = evaluate_shop(session_table(table), tables.SMALL, Asked(0), tmp_path, no_report)
    assert kept.ranked() is not None
    assert "wsknn" not in found["baselines"]


def test_another_file_or_other_options_are_another_run(table: Path, tmp_path: Path) -> None:
    other = tables.write(tmp_path / "t.parquet", tables.sessions(9, 4), tables.sessions(9, 5))
    names = {
        digest(table, tables.SMALL),
        digest(other, tables.SMALL),
        digest(table, Options(queries=2000, embedding=False, count=31)),
    }
    assert len(names) == 3
    assert digest(table, tables.SMALL) in names


def test_learned_names_what_was_learned(document: dict[str, Any]) -> None:
    learned = document["learned"]
    assert learned["queries"] > 100
    assert learned["trees"] > 0
    assert set(learned["sources"]) == {*SOURCES, "merge"}
