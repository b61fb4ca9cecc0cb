"""The search of hyper-parameters: its space, its budget, and what it finds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from pydantic import TypeAdapter

from contracts.errors import UsageError
from contracts.features import RANKED
from training import ranker, search
from training.dataset import Rows
from training.search import Budget, Trial
from training.search_space import SPACE, Space, read_found, read_space, split

SMALL = {"num_leaves": [4, 8]}


def rows(queries: int, seed: int) -> Rows:
    """Ten candidates each; the label has the highest price, nearly always."""
    rng = np.random.default_rng(seed)
    features = np.full((queries * 10, len(RANKED)), np.nan, np.float32)
    price = rng.random((queries, 10)).astype(np.float32)
    features[:, RANKED.index("price")] = price.reshape(-1)
    best = np.where(rng.random(queries) < 0.9, price.argmax(axis=1), 0)
    label = np.zeros((queries, 10), np.int8)
    label[np.arange(queries), best] = 1
    return Rows(
        features, label.reshape(-1), np.repeat(np.arange(queries, dtype=np.int32), 10),
        np.full(queries, 10), np.array(["i"] * queries * 10, dtype=object),
        np.ones(queries, np.float32),
    )  # fmt: skip


WINDOWS = [rows(150, 1), rows(150, 2)]
KINDS = [["click", "cart"] * 75, ["purchase", "click"] * 75]


def space(folder: Path, given: Any) -> Path:
    path = folder / "space.json"
    path.write_text(json.dumps(given))
    return path


def test_trials_begin_with_what_is_usual_and_the_best_is_kept(tmp_path: Path) -> None:
    asked = read_space(space(tmp_path, SMALL | {"label_weight.cart": [1.0, 3.0]}))
    found = search.search(WINDOWS, KINDS, asked, Budget(4, 600), seed=1)
    assert len(found.trials) == 5
    assert found.trials[0].parameters == {}
    best = max(trial.figures["ndcg_20"] for trial in found.trials)
    assert found.best.figures["ndcg_20"] == best > 0.8
    for trial in found.trials[1:]:
        assert trial.parameters["num_leaves"] in (4, 8)
        assert trial.parameters["label_weight.cart"] in (1.0, 3.0)


def test_a_search_ends_with_its_seconds(tmp_path: Path) -> None:
    asked = read_space(space(tmp_path, SMALL))
    found = search.search(WINDOWS, KINDS, asked, Budget(1000, 1e-9))
    assert len(found.trials) == 1


def test_an_interrupted_search_keeps_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    asked = read_space(space(tmp_path, SMALL))
    found = search.search(WINDOWS, KINDS, asked, Budget(50, 600), report=stop)
    assert (found.stopped, len(found.trials)) == ("interrupted", 3)


def test_one_seed_finds_one_thing(tmp_path: Path) -> None:
    asked = read_space(space(tmp_path, {"learning_rate": {"low": 0.05, "high": 0.2}}))
    first, second = (search.search(WINDOWS, KINDS, asked, Budget(2, 600), 7) for _ in range(2))
    assert [t.parameters for t in first.trials] == [t.parameters for t in second.trials]


def test_a_trial_that_lightgbm_refuses_is_told_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_early = ranker.stopped_early

    def picky(earlier: Rows, later: Rows, seed: int, given: Mapping[str, Any]) -> Any:
        if given.get("num_leaves") == 4:
            raise lightgbm.basic.LightGBMError("no four leaves")
        return stopped_early(earlier, later, seed, given)

    monkeypatch.setattr(ranker, "stopped_early", picky)
    found = search.search(
        WINDOWS, KINDS, read_space(space(tmp_path, SMALL)), Budget(8, 600), seed=1
    )
    assert len(found.trials) + len(found.refused) == 1 + 8
    assert found.refused
    assert set(found.refused) == {"{'num_leaves': 4}: no four leaves"}
    assert {trial.parameters["num_leaves"] for trial in found.trials[1:]} == {8}


def test_too_few_queries_are_not_searched_on() -> None:
    with pytest.raises(UsageError, match="6 queries to judge trials by"):
        search.search([rows(30, 1)], [["click"] * 30], {}, Budget(1, 600))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_leaves": {"low": 31, "high": 7}}, "no range"),
        ({"learning_rate": {"low": 0.0, "high": 0.1, "log": True}}, "no range"),
        ({"num_leaves": []}, "num_leaves"),
        ({"num_leaves": {"low": 7, "high": 7}}, "low has to be below high"),
        ({"num_leaves": {"low": "7", "high": 31}}, "num_leaves"),
        ({"num_leaves": ["many"]}, "num_leaves"),
        ({"objective": ["binary"]}, "objective cannot be searched"),
        ({"label_weight.gift": [1.0]}, "label_weight.gift cannot be searched"),
        ({"label_weight.cart": [1.0, -1.0]}, "-1.0 came, expected a number from 0.001 to 1000"),
        ({"label_weight.cart": {"low": 0, "high": 2.5}}, "0.0 came, expected a number from 0.001"),
        ({"label_weight.cart": [1e300]}, "expected a number from 0.001 to 1000"),
        ({"num_leaves": [1]}, "num_leaves: 1 came, expected a whole number from 2 to 4096"),
        ({"num_leaves": {"low": 2.5, "high": 9}}, "2.5 came, expected a whole number"),
        ({"num_leaves": [True]}, "true came, expected a whole number"),
        ({"num_leaves": [31.0]}, "31.0 came, expected a whole number"),
        ({"num_leaves": 7}, "num_leaves: Input should be a valid list"),
        ({"extra_trees": [1]}, "1 came, expected true or false"),
        ({"bagging_fraction": {"low": 0.5, "high": 1.5}}, "1.5 came, expected .* from 0.01 to 1"),
        ([1], "names no parameter; expected .* label_weight.cart"),
    ],
)
def test_what_is_wrong_with_a_space_is_told(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_space(space(tmp_path, given))


def test_the_usual_space() -> None:
    assert read_space(None) is SPACE


def test_what_was_found_is_read_again(tmp_path: Path) -> None:
    asked = read_space(space(tmp_path, SMALL | {"label_weight.cart": [2.0]}))
    found = search.search(WINDOWS, KINDS, asked, Budget(1, 600))
    told = split(found.trials[1].parameters)
    assert told["label_weights"] == {"cart": 2.0}
    path = tmp_path / "found.json"
    path.write_text(json.dumps(found.as_file()))
    assert read_found(path) == found.as_file()
    assert read_found(None) == {}
    path.write_text("{}")
    with pytest.raises(UsageError, match="is no result of a search"):
        read_found(path)


# --- which trial is the best, when it ends, what it is judged on ---------------------------------


def judged(
    figure: Callable[[Mapping[str, Any]], float], pause: float = 0.0
) -> Callable[..., Trial]:
    """Instead of a trial: a figure made of its parameters alone."""

    def tried(windows: Any, kinds: Any, parameters: Mapping[str, Any], seed: int) -> Trial:
        time.sleep(pause)
        return Trial(dict(parameters), {"ndcg_20": figure(parameters)})

    return tried


def test_the_best_is_the_best_of_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = read_space(space(tmp_path, {"num_leaves": {"low": 2, "high": 60}}))
    monkeypatch.setattr(search, "_tried", judged(lambda of: -abs(of.get("num_leaves", 0) - 40)))
    found = search.search(WINDOWS, KINDS, asked, Budget(25, 600), seed=3)
    leaves = [trial.parameters["num_leaves"] for trial in found.trials[1:]]
    nearest = min(leaves, key=lambda number: abs(number - 40))
    assert abs(found.best.parameters["num_leaves"] - 40) == abs(nearest - 40) < 10
    assert found.best in found.trials
    assert found.as_file() == {"ranker": found.best.parameters, "label_weights": {}}


def test_where_nothing_is_better_the_usual_parameters_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = read_space(space(tmp_path, SMALL))
    monkeypatch.setattr(search, "_tried", judged(lambda of: 0.0 if of else 1.0))
    found = search.search(WINDOWS, KINDS, asked, Budget(5, 600))
    assert found.best is found.trials[0]
    assert found.as_file() == {"ranker": {}, "label_weights": {}}


def test_no_trial_begins_after_the_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read_space(space(tmp_path, SMALL))
    monkeypatch.setattr(search, "_tried", judged(lambda of: 0.0, pause=0.2))
    found = search.search(WINDOWS, KINDS, asked, Budget(1000, 0.5))
    assert 2 <= len(found.trials) <= 1 + 3  # at 0, 0.2 and 0.4 seconds
    assert found.stopped == "budget"


def test_each_trial_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = read_space(space(tmp_path, SMALL)), list[tuple[int, int]]()
    monkeypatch.setattr(search, "_tried", judged(lambda of: 0.0))
    search.search(
        WINDOWS, KINDS, asked, Budget(3, 600), report=lambda done, of: told.append((done, of))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_values_stay_in_their_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "num_leaves": {"low": 4, "high": 9, "log": True},
        "learning_rate": {"low": 0.05, "high": 0.4, "log": True},
        "bagging_fraction": {"low": 0.9, "high": 1},
        "lambda_l2": {"low": 1, "high": 2},
        "extra_trees": [True, False],
    }
    monkeypatch.setattr(search, "_tried", judged(lambda of: 0.0))
    found = search.search(WINDOWS, KINDS, read_space(space(tmp_path, given)), Budget(30, 600))
    seen = [trial.parameters for trial in found.trials[1:]]
    assert all(set(of) == set(given) for of in seen)
    assert all(isinstance(of["num_leaves"], int) for of in seen)
    assert {of["num_leaves"] for of in seen} <= set(range(4, 10))
    assert all(0.05 <= of["learning_rate"] <= 0.4 for of in seen)
    assert all(0.9 <= of["bagging_fraction"] <= 1 for of in seen)
    assert any(of["lambda_l2"] != int(of["lambda_l2"]) for of in seen)  # 1 to 2 are no two values
    assert {of["extra_trees"] for of in seen} == {True, False}


def test_the_newest_window_judges_and_only_the_older_ones_teach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Rows, Rows]] = []
    stopped_early = ranker.stopped_early

    def noted(earlier: Rows, later: Rows, *rest: Any) -> Any:
        seen.append((earlier, later))
        return stopped_early(earlier, later, *rest)

    monkeypatch.setattr(ranker, "stopped_early", noted)
    newest, older = rows(60, 3), rows(90, 4)
    kinds = [["click"] * 60, ["cart", "click", "purchase"] * 30]
    asked = {"label_weight.cart": [3.0], "label_weight.purchase": [5.0]}
    search.search([newest, older], kinds, TypeAdapter(Space).validate_python(asked), Budget(1, 600))
    (plain, later), (weighted, _) = seen
    np.testing.assert_array_equal(later.features, newest.features)
    np.testing.assert_array_equal(plain.features, older.features)
    assert plain.weight.tolist() == [1.0] * 90
    assert weighted.weight.tolist() == [3.0, 1.0, 5.0] * 30


def test_figures_are_those_of_the_label_in_the_newest_window() -> None:
    """Where nine of ten labels have the highest price, they stand first."""
    found = search.search(WINDOWS, KINDS, {}, Budget(0, 600)).trials[0]
    assert 0.85 < found.figures["mrr_20"] <= found.figures["ndcg_20"]
    assert found.figures["hit_rate_20"] == 1  # ten candidates only
    other = replace(WINDOWS[0], label=np.tile(np.eye(10, dtype=np.int8)[3], 150))
    muddled = search.search([other, WINDOWS[1]], KINDS, {}, Budget(0, 600)).trials[0]
    assert muddled.figures["mrr_20"] < 0.4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("{num_leaves: 3}", "no JSON"),
        ('{"max_bin": [63], "max_bin": [127]}', "max_bin: stands there twice"),
        ('{"num_leaves": 7}', "num_leaves"),
        ("[" * 100_000, "no JSON"),
        ('{"num_leaves": {"low": 7}}', "num_leaves.*Field required"),
        ('{"num_leaves": {"low": 7, "high": 7}}', "low 7 and high 7 are no range"),
        ('{"num_leaves": {"low": 7, "high": 31, "step": 2}}', "num_leaves.*step"),
        ('{"label_weights.cart": [1.0]}', "label_weight.click|label_weight.cart"),
        ('{"verbosity": [1], "metric": ["auc"]}', "metric, verbosity cannot be searched"),
    ],
)
def test_a_space_that_is_none_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        read_space(path)
    assert str(path) in str(told.value)


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    for read in (read_space, read_found):
        with pytest.raises(UsageError, match=r"none\.json"):
            read(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"ranker": {}}', '{"ranker": 3, "label_weights": {}}', "null"]
)
def test_what_no_search_wrote_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="expected an object with ranker and label_weights"):
        read_found(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_leafs": [4, 8]}, "num_leafs cannot be searched; there are .*num_leaves"),
        ({"application": ["binary"]}, "application cannot be searched"),
        ({}, "names no parameter"),
        (
            {"bagging_fraction": {"low": 1.1, "high": 1.5}},
            "1.1 came, expected a number from 0.01 to 1",
        ),
    ],
)
def test_a_space_that_would_search_nothing_is_refused(
    tmp_path: Path, given: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_space(space(tmp_path, given))


def test_a_space_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_text('{"lambda_l2": {"low": 1, "high": Infinity}}')
    with pytest.raises(UsageError, match=r"space\.json"):
        read_space(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "the file"),
        ({"ranker": {}}, "label_weights"),
        ({"ranker": {"objective": 1}, "label_weights": {}}, "ranker: objective cannot be searched"),
        ({"ranker": {"leaves": 9}, "label_weights": {}}, "leaves cannot be searched"),
        ({"ranker": {"num_leaves": "many"}, "label_weights": {}}, "ranker.num_leaves"),
        ({"ranker": {"num_leaves": [9]}, "label_weights": {}}, "ranker.num_leaves"),
        ({"ranker": {}, "label_weights": {"cart": -1}}, "label_weights.cart"),
        ({"ranker": {"num_leaves": 1}, "label_weights": {}}, "ranker.num_leaves: 1 came"),
        ({"ranker": {}, "label_weights": {"cart": "2"}}, "label_weights.cart"),
        (
            {"ranker": {}, "label_weights": {"gift": 2}},
            "label_weights: gift cannot be searched; there are cart, click",
        ),
    ],
)
def test_parameters_that_no_search_wrote_are_told(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_found(space(tmp_path, given))
