"""What the ranker learns from a planted shop, and what must teach it nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contracts.errors import UsageError
from contracts.features import RANKED
from training import baselines, dataset, evaluate, metrics, ranker
from training.dataset import Listed
from training.history import Query

DAY = 86_400_000
LABEL_START, TEST_START, END = 14 * DAY, 21 * DAY, 28 * DAY

ITEMS = {f"i{number}" for number in range(60)}


def within(queries: list[Query], start: int, end: int) -> list[Query]:
    return [query for query in queries if start <= query.moment and query.label_time < end]


@pytest.fixture(scope="module")
def learned(visits: Any, queries: list[Query], make_index: Any, make_reader: Any) -> ranker.Fitted:
    index = make_index(visits, LABEL_START)
    listed = dataset.propose(within(queries, LABEL_START, TEST_START), index, 50)
    return ranker.fit([dataset.rows_of(dataset.with_negatives(listed, 0), make_reader())])


@pytest.fixture(scope="module")
def listed(visits: Any, queries: list[Query], make_index: Any) -> list[Listed]:
    index = make_index(visits, TEST_START)
    return dataset.propose(within(queries, TEST_START, END)[:300], index, 50)


def ranks(listed: list[Listed], fitted: ranker.Fitted, read: Any) -> metrics.Ranks:
    return evaluate.evaluate(
        listed, read, lambda rows: np.asarray(fitted.booster.predict(rows)), lambda *_: None
    ).ranks


def clicks(visits: Any) -> pa.Table:
    rows = [
        (visit.name, visit.start + 1000 * step, item)
        for visit in visits
        for step, item in enumerate(visit.items)
    ]
    names = ("visit", "time", "item_id")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def test_the_ranker_beats_popularity_clearly(
    learned: ranker.Fitted, listed: list[Listed], visits: Any, make_reader: Any
) -> None:
    own = metrics.mrr(ranks(listed, learned, make_reader()), 10)
    asked = [entry.query for entry in listed]
    popular = metrics.mrr(baselines.popularity(clicks(visits), asked, TEST_START), 10)
    assert own > 0.6  # three of four labels follow the plan and can stand first
    assert own > 3 * popular


def test_shuffled_labels_teach_and_reward_nothing(
    learned: ranker.Fitted, listed: list[Listed], make_reader: Any
) -> None:
    """Were a label's own features to leak into its rows, a wrong label would still stand first."""
    rng = np.random.default_rng(0)
    shuffled = [
        Listed(entry.query, entry.candidates, int(rng.integers(len(entry.candidates))))
        for entry in listed
    ]
    assert (
        metrics.hit_rate(ranks(shuffled, learned, make_reader()), 10) < 0.35
    )  # 10 of 50 by chance


def test_scores_do_not_depend_on_the_label(
    learned: ranker.Fitted, listed: list[Listed], make_reader: Any
) -> None:
    entries = [entry for entry in listed if entry.label is not None][:20]
    hidden = [
        Listed(entry.query._replace(label="?", label_time=0), entry.candidates, None)
        for entry in entries
    ]
    seen, blind = (dataset.rows_of(which, make_reader()) for which in (entries, hidden))
    np.testing.assert_array_equal(seen.features, blind.features)


def test_items_of_the_future_are_no_candidates(visits: Any, make_index: Any) -> None:
    later = type(visits[-1])("future", TEST_START + 1, ("i1", "future item", "i2"))
    index = make_index([*visits, later], TEST_START)
    asked = Query("q", "q", TEST_START + 2, ("i1",), "future item", TEST_START + 1000)
    entry = dataset.propose([asked], index, 1000)[0]
    assert entry.label is None
    assert np.isinf(evaluate.merged_ranks([entry])).all()


def test_the_number_of_trees_comes_from_the_later_queries(learned: ranker.Fitted) -> None:
    assert 1 <= learned.trees < ranker.MAX_TREES
    assert learned.booster.num_trees() == learned.trees
    assert learned.booster.feature_name() == list(RANKED)
    assert 0.5 < learned.ndcg <= 1


def test_the_same_seed_gives_the_same_model(
    visits: Any, queries: list[Query], make_index: Any, make_reader: Any
) -> None:
    index = make_index(visits, LABEL_START)
    entries = dataset.propose(within(queries, LABEL_START, TEST_START)[:200], index, 30)
    rows = dataset.rows_of(dataset.with_negatives(entries, 0), make_reader())
    one, two = (ranker.fit([rows], seed=7).booster.model_to_string() for _ in range(2))
    assert one == two


def test_the_newest_window_decides_where_older_ones_are_enough(
    visits: Any, queries: list[Query], make_index: Any, make_reader: Any
) -> None:
    index = make_index(visits, LABEL_START)
    entries = dataset.propose(within(queries, LABEL_START, TEST_START)[:300], index, 30)
    rows = dataset.rows_of(dataset.with_negatives(entries, 0), make_reader())
    newest, older = rows.part(0, 100), rows.part(100, len(rows.sizes))
    earlier, later = ranker.validation_split([newest, older])
    assert (len(earlier.sizes), len(later.sizes)) == (len(older.sizes), 100)
    np.testing.assert_array_equal(later.features, newest.features)
    earlier, later = ranker.validation_split([older, newest])  # too few older ones: some of both
    assert len(earlier.sizes) == 100 + int(0.8 * len(older.sizes))
    assert earlier.query.tolist() == sorted(earlier.query.tolist())
    assert len(earlier.label) == earlier.sizes.sum()


def test_weights_of_labels_reach_the_ranker(
    visits: Any, queries: list[Query], make_index: Any, make_reader: Any
) -> None:
    index = make_index(visits, LABEL_START)
    asked = within(queries, LABEL_START, TEST_START)[:200]
    bought = [
        query._replace(kind="purchase") if row % 3 == 0 else query
        for row, query in enumerate(asked)
    ]
    entries = dataset.with_negatives(dataset.propose(bought, index, 30), 0)
    rows = dataset.rows_of(entries, make_reader(), {"purchase": 5.0})
    assert set(rows.weight.tolist()) == {1.0, 5.0}
    plain = dataset.rows_of(entries, make_reader())
    models = [ranker.fit([each], seed=7).booster.model_to_string() for each in (rows, plain)]
    assert models[0] != models[1]


def test_too_few_queries_are_named(make_reader: Any, listed: list[Listed]) -> None:
    rows = dataset.rows_of(dataset.with_negatives(listed[:10], 0), make_reader())
    with pytest.raises(UsageError, match="at least 50"):
        ranker.fit([rows])


def test_the_summary_tells_candidate_recall_by_source(listed: list[Listed]) -> None:
    methods = {"merged_candidates": evaluate.merged_ranks(listed)}
    found = evaluate.summary(methods, listed, len(listed), 50, ITEMS)
    recall = found["candidate_recall"]
    assert recall["merged"] == pytest.approx(np.mean([entry.label is not None for entry in listed]))
    assert recall["vector"] == 0  # the fake has no vectors
    assert 0.5 < recall["covisitation"] <= recall["merged"]
    assert found["queries"] == len(listed)


def test_labels_that_nobody_could_name_are_told_apart(listed: list[Listed]) -> None:
    entry = next(entry for entry in listed if entry.label is not None)
    new = Listed(entry.query._replace(label="new item"), entry.candidates, None)
    ranks = np.array([1.0, 1.0, 1.0, np.inf])
    found = evaluate.summary({"one": ranks}, [entry, entry, entry, new], 4, 50, ITEMS)
    assert found["known_labels"] == 3 / 4
    assert found["quality"]["one"]["hit_rate_10"] == 3 / 4
    assert found["quality_of_known_labels"]["one"]["hit_rate_10"] == 1


def test_what_is_served_is_the_best_of_each_query(
    learned: ranker.Fitted, listed: list[Listed], make_reader: Any
) -> None:
    result = evaluate.evaluate(
        listed[:3], make_reader(), lambda rows: np.arange(len(rows), dtype=float), lambda *_: None
    )
    sizes = [len(entry.candidates) for entry in listed[:3]]
    assert len(result.scores) == 3 * evaluate.SERVED
    assert result.scores[0] == sizes[0] - 1
    assert result.items[0] == listed[0].candidates.items[-1]
