"""Figures and intervals, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.figures import Bootstrap, figures, gini, lists_figures, shares
from training.evaluation.segments import segments
from training.history import Query
from training.metrics import mid_rank

INF = float("inf")
RANKS = np.array([1.0, 4.0, 15.0, 21.0, INF])


def test_figures_by_hand() -> None:
    found = figures(RANKS, Bootstrap(np.arange(5)))
    values = {name: of["value"] for name, of in found.items()}
    ndcg = [1.0, 1 / np.log2(5), 1 / np.log2(16)]
    assert values == {
        "hit_rate@10": 0.4, "hit_rate@20": 0.6,
        "mrr@10": 0.25, "mrr@20": pytest.approx((1 + 1 / 4 + 1 / 15) / 5, abs=1e-5),
        "ndcg@10": pytest.approx(sum(ndcg[:2]) / 5, abs=1e-5),
        "ndcg@20": pytest.approx(sum(ndcg) / 5, abs=1e-5),
    }  # fmt: skip


def test_an_interval_holds_the_value_and_is_wider_with_fewer_sessions() -> None:
    ranks = np.tile(RANKS, 200)
    many = figures(ranks, Bootstrap(np.arange(1000)))["hit_rate@20"]
    few = figures(ranks, Bootstrap(np.arange(1000) // 50))["hit_rate@20"]
    # sessions of 50 queries that are all alike: they say no more than one another
    same = figures(np.repeat(RANKS, 200), Bootstrap(np.arange(1000) // 200))["hit_rate@20"]
    for of in (many, few, same):
        assert of["low"] <= of["value"] <= of["high"]
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 1000), rel=0.15)
    assert same["high"] - same["low"] > 5 * (many["high"] - many["low"])


def test_the_same_queries_give_the_same_interval() -> None:
    once, again = (figures(RANKS, Bootstrap(np.arange(5))) for _ in range(2))
    assert once == again


def test_some_queries_only() -> None:
    chosen = np.array([True, True, False, False, False])
    assert figures(RANKS, Bootstrap(np.arange(5)), chosen)["mrr@10"]["value"] == 0.625
    assert figures(RANKS, Bootstrap(np.arange(5)), np.zeros(5, bool)) == {}


def test_resamples_without_a_visit_of_a_segment_say_nothing_of_it() -> None:
    chosen = np.array([True, False, False, False, False])
    assert figures(RANKS, Bootstrap(np.arange(5)), chosen)["mrr@10"] == {
        "value": 1.0, "low": 1.0, "high": 1.0,
    }  # fmt: skip


def test_shares() -> None:
    found = shares({"a": np.array([True, False, True, True])}, Bootstrap(np.arange(4)))
    assert found["a"]["value"] == 0.75


def test_lists_by_hand() -> None:
    """Four items with 1 to 4 clicks; the lists show the two most clicked."""
    lists = np.array([[3, 2], [3, -1]], dtype=np.int32)
    labels, clicks = np.array([0, 3]), np.array([1.0, 2.0, 3.0, 4.0])
    found = lists_figures(lists, labels, clicks, Bootstrap(np.arange(2)))
    assert found["coverage"]["value"] == 0.5
    assert found["popularity_percentile"]["value"] == pytest.approx((0.875 + 1) / 2)
    assert found["popularity_percentile_of_clicks"]["value"] == pytest.approx((0.25 + 1) / 2)
    assert found["gini"]["value"] == pytest.approx(gini(np.array([0, 0, 1, 2])), abs=1e-5)


def test_gini() -> None:
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.zeros(3, np.int64)) == 0


def query(label: str, *visited: str, session: str = "s") -> Query:
    return Query("v", session, 0, visited, label, 1, "click")


def test_segments_by_hand() -> None:
    clicks = {"a": 9, "b": 1, "c": 1, "d": 1, "e": 1}
    queries = [query("a", "a"), query("b", "a", "b", "a", session="t"), query("new", *"abcde")]
    found = segments(queries, clicks, frozenset({"t"}))
    told = {name: flags.tolist() for name, flags in found.items() if flags.any()}
    assert told == {
        "length 1": [True, False, False], "length 3-4": [False, True, False],
        "length 5-9": [False, False, True], "repeat item": [True, True, False],
        "item new to the session": [False, False, True], "head item": [True, False, False],
        "tail item": [False, True, False], "item without a click before": [False, False, True],
        "first prefix of a session": [True, False, False], "returning session": [False, True, False],
    }  # fmt: skip


# --- ranks between places, intervals beside a plain resampling --------------------------------


def test_a_rank_shared_by_equal_scores_counts_as_the_middle_place() -> None:
    ranks = np.array([mid_rank(np.array([7.0, 7.0, 7.0, 1.0]), 0), 10.0, 10.5, 20.0, 20.5])
    values = {name: of["value"] for name, of in figures(ranks, Bootstrap(np.arange(5))).items()}
    assert ranks[0] == 2
    assert (values["hit_rate@10"], values["hit_rate@20"]) == (
        0.4,
        0.8,
    )  # 10.5 is not in the first 10
    assert values["mrr@10"] == pytest.approx((1 / 2 + 1 / 10) / 5, abs=1e-5)
    assert values["mrr@20"] == pytest.approx((1 / 2 + 1 / 10 + 1 / 10.5 + 1 / 20) / 5, abs=1e-5)
    gains = [1 / np.log2(3), 1 / np.log2(11), 1 / np.log2(11.5), 1 / np.log2(21)]
    assert values["ndcg@10"] == pytest.approx(sum(gains[:2]) / 5, abs=1e-5)
    assert values["ndcg@20"] == pytest.approx(sum(gains) / 5, abs=1e-5)


def resampled(hits: np.ndarray, sessions: np.ndarray) -> tuple[float, float]:
    """The interval of the mean by drawing sessions one by one."""
    rng = np.random.default_rng(99)
    groups = [hits[sessions == session] for session in np.unique(sessions)]
    means = []
    for _ in range(1500):
        drawn = [groups[number] for number in rng.integers(len(groups), size=len(groups))]
        means.append(float(np.concatenate(drawn).mean()))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_an_interval_is_that_of_sessions_drawn_one_by_one() -> None:
    """Sessions of 1 to 9 queries, named in no order, each mostly all hits or all misses."""
    rng = np.random.default_rng(4)
    names = rng.permutation(1000)[:60]
    sessions = np.repeat(names, rng.integers(1, 10, 60))
    good = dict(zip(names.tolist(), (rng.random(60) < 0.5).tolist(), strict=True))
    hit = np.array([good[name] for name in sessions.tolist()]) ^ (rng.random(len(sessions)) < 0.1)
    found = figures(np.where(hit, 1.0, INF), Bootstrap(sessions))["hit_rate@10"]
    low, high = resampled(hit.astype(float), sessions)
    assert found["value"] == pytest.approx(hit.mean(), abs=1e-5)
    assert found["low"] == pytest.approx(low, abs=0.02)
    assert found["high"] == pytest.approx(high, abs=0.02)
    alone = np.sqrt(hit.mean() * (1 - hit.mean()) / len(hit)) * 1.96
    assert found["high"] - found["low"] > 3 * alone  # queries of a session are not independent


def test_fewer_sessions_of_the_same_kind_say_less() -> None:
    widths = []
    for count in (20, 80, 320):
        ranks = np.where(np.arange(count) % 2 == 0, 1.0, INF)
        of = figures(ranks, Bootstrap(np.arange(count)))["hit_rate@10"]
        widths.append(of["high"] - of["low"])
    assert widths[0] > 1.6 * widths[1] > 1.6 * 1.6 * widths[2]


def test_a_seed_names_the_resamples() -> None:
    ranks = np.where(np.arange(50) % 3 == 0, 1.0, INF)
    first, same, other = (figures(ranks, Bootstrap(np.arange(50), seed)) for seed in (3, 3, 4))
    assert first == same
    assert first["mrr@10"] != other["mrr@10"]
    assert first["mrr@10"]["value"] == other["mrr@10"]["value"]


def test_an_interval_of_some_queries_is_that_of_these_alone() -> None:
    ranks = np.tile([1.0, INF], 100)
    chosen = np.arange(200) % 2 == 0  # all of them hits
    found = figures(ranks, Bootstrap(np.arange(200)), chosen)["hit_rate@10"]
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_coverage_counts_each_item_once_and_its_interval_holds_it() -> None:
    """100 lists of 20 of 40 items, 10 items never."""
    rng = np.random.default_rng(0)
    lists = np.stack([rng.permutation(30)[:20] for _ in range(100)]).astype(np.int32)
    found = lists_figures(
        lists, np.zeros(100, np.int64), np.arange(40.0), Bootstrap(np.arange(100))
    )
    assert found["coverage"]["value"] == 0.75
    assert found["coverage"]["low"] <= 0.75 <= found["coverage"]["high"]
    same = np.tile(np.arange(20, dtype=np.int32), (100, 1))
    found = lists_figures(same, np.zeros(100, np.int64), np.arange(40.0), Bootstrap(np.arange(100)))
    assert found["coverage"]["value"] == 0.5
    assert found["gini"] == {
        "value": 0.5,
        "low": 0.5,
        "high": 0.5,
    }  # half of the items share all places evenly


def test_intervals_of_figures_over_all_lists_are_those_of_whole_visits() -> None:
    """Visits with ten lists each, all alike, say as much as with one."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, 400, (100, 20)).astype(np.int32)

    def widths(lists: np.ndarray, sessions: np.ndarray) -> list[float]:
        labels = np.zeros(len(lists), np.int64)
        found = lists_figures(lists, labels, np.arange(500.0), Bootstrap(sessions))
        for name in ("coverage", "gini"):
            assert found[name]["low"] < found[name]["value"] < found[name]["high"]
        return [found[name]["high"] - found[name]["low"] for name in ("coverage", "gini")]

    alone = widths(own, np.arange(100))
    assert widths(np.repeat(own, 10, axis=0), np.repeat(np.arange(100), 10)) == pytest.approx(alone)


def test_a_label_that_nobody_knows_has_no_place_among_the_popular() -> None:
    lists = np.zeros((3, 1), np.int32)
    clicks, bootstrap = np.arange(1.0, 5.0), Bootstrap(np.arange(3))
    found = lists_figures(lists, np.array([3, -1, 3]), clicks, bootstrap)
    assert found["popularity_percentile_of_clicks"]["value"] == 1
    found = lists_figures(lists, np.array([-1, -1, -1]), clicks, bootstrap)
    assert "popularity_percentile_of_clicks" not in found


def test_popular_lists_have_a_bias_beside_what_is_clicked() -> None:
    clicks = np.arange(1.0, 101.0)
    rng = np.random.default_rng(0)
    popular = np.tile(np.arange(80, 100, dtype=np.int32), (50, 1))
    found = lists_figures(popular, rng.integers(0, 100, 50), clicks, Bootstrap(np.arange(50)))
    assert found["popularity_percentile"]["value"] == pytest.approx(0.905)
    labels = found["popularity_percentile_of_clicks"]
    assert labels["low"] <= labels["value"] <= labels["high"] < 0.7
    assert found["popularity_percentile"]["low"] == found["popularity_percentile"]["high"]
