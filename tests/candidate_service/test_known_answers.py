"""Sources on histories so small that the answer is worked out by hand; what no source may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SIGNALS, SOURCES
from contracts.events import EventType
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from tests.candidate_service.shop import CUTOFF, DAY, Row, events, visit

Parameters = dict[str, dict[str, float]]
Said = tuple[int, int, float | None]
"""Category, brand (0: unknown) and price."""
AGELESS: Parameters = {
    name: {"age_days": 1e12}
    for name in ("transition", "sequential", "covisitation", "two_hop", "knn")
}
"""A click counts 1 however old it is."""
AGELESS["knn"]["floor"] = 0.0
OF_VISITS = (*AGELESS, "trending", "popular")
ASKED = ("transition", "sequential", "covisitation", "two_hop", "knn", "content", "trending")
"""Sources that answer to what was visited."""


def catalogue(said: Mapping[str, Said], moment: int = CUTOFF - DAY) -> pa.Table:
    return told([(item, *of, moment, moment) for item, of in said.items()])


def told(rows: Sequence[tuple[str, int, int, float | None, int, int]]) -> pa.Table:
    """(item, category, brand, price, when it was so, when it became known)."""
    items, categories, brands, prices, moments, known = zip(*rows, strict=True)
    kind = pa.timestamp("ms", "UTC")
    return pa.table(
        {
            "item_id": pa.array(items, pa.string()),
            EVENT_TIMESTAMP: pa.array(moments, kind),
            CREATED_TIMESTAMP: pa.array(known, kind),
            "category_id": pa.array(categories, pa.int64()),
            "brand_id": pa.array(brands, pa.int64()),
            "price": pa.array(prices, pa.float32()),
        }
    )


def made(
    folder: Path, rows: Sequence[Row] | pa.Table, parameters: Parameters | None = None,
    said: pa.Table | None = None,
) -> CandidateIndex:  # fmt: skip
    table = rows if isinstance(rows, pa.Table) else events(rows)
    manifest = build_index(table, None, CUTOFF, folder, parameters=parameters, catalogue=said)
    return CandidateIndex.load(folder / manifest.version)


def walks(*paths: str, days: int = 1, name: str = "v") -> list[Row]:
    """A visit for each word; every letter is an item."""
    end = CUTOFF - days * DAY
    return [row for n, path in enumerate(paths) for row in visit(f"{name}{n}", path, end)]


def received(rows: Sequence[Row], moment: int) -> pa.Table:
    """The same events, which became known at one moment."""
    table = events(rows)
    place = table.column_names.index("received")
    return table.set_column(place, "received", pa.array([moment] * len(table), pa.int64()))


def says(index: CandidateIndex, source: str, visited: str, right: Mapping[str, float]) -> None:
    """The source answers with exactly these items, in this order, with these scores."""
    found, scores = index.propose(source, list(visited), 20)
    assert found == tuple(right)
    np.testing.assert_allclose(scores, list(right.values()), rtol=1e-5)


# --- item tables ----------------------------------------------------------------------------------


def test_what_comes_next_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path, walks("abx", "ab", "aca"), AGELESS)
    says(index, "transition", "a", {"b": 2 / 4, "c": 1 / 4})  # 3 next clicks, and 1 that shrinks
    says(index, "transition", "c", {"a": 1 / 2})
    says(index, "transition", "ca", {"b": 0.5, "a": 0.6 / 2, "c": 0.25})  # c was a step ago


def test_what_comes_within_some_clicks_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path, walks("abcd", "ac"), AGELESS)
    row = 1 + (1 / 2 + 1) + 1 / 3 + 1  # of a: b, c twice, d; and 1 that shrinks
    says(index, "sequential", "a", {"c": 1.5 / row, "b": 1 / row, "d": 1 / 3 / row})
    says(index, "sequential", "d", {})


def test_what_comes_too_late_is_not_sequential(tmp_path: Path) -> None:
    near = AGELESS | {"sequential": {"gap": 2.0}, "covisitation": {"gap": 1.0}}
    index = made(tmp_path, walks("abcd"), near)
    assert index.propose("sequential", ["a"], 9)[0] == ("b", "c")
    assert index.propose("covisitation", ["b"], 9)[0] == ("a", "c")


def test_what_goes_together_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path, walks("ab", "ba", "axc"), AGELESS)
    # a was clicked 3 times, b twice, x and c once
    right = {"b": 2 / sqrt(6), "x": 1 / sqrt(3), "c": exp(-1 / 3) / sqrt(3)}
    says(index, "covisitation", "a", right)
    says(index, "covisitation", "c", {"x": 1.0, "a": exp(-1 / 3) / sqrt(3)})


def test_two_steps_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path, walks("ab", "bc"), AGELESS)
    # b has two neighbours, a and c one each: every edge weighs 1 / root(2 * 1)
    says(index, "two_hop", "a", {"a": 1 / 2, "c": 1 / 2})
    says(index, "two_hop", "b", {"b": 1.0})


# --- session kNN ----------------------------------------------------------------------------------


def test_neighbour_sessions_by_hand(tmp_path: Path) -> None:
    index = made(tmp_path, walks("abc", "xay", "def"), AGELESS)
    alike = (log(3 / 2) + 1e-3) / 2  # 2 of 3 sessions hold a; root of their length and 1
    after, before = exp(-1 / 2.5), 0.7 * exp(-1 / 2.5)
    right = {"a": 0.35 * 2, "b": after, "y": after, "x": before, "c": exp(-2 / 2.5)}
    says(index, "knn", "a", {item: alike * value for item, value in right.items()})
    found = index.candidates(["a"], 8)
    signals = {
        item: dict(zip(SIGNALS, row, strict=True))
        for item, row in zip(found.items, found.signals.tolist(), strict=True)
    }
    assert {item: signals[item]["knn_sessions"] for item in "abxd"} == {"a": 2, "b": 1, "x": 1, "d": 0}  # fmt: skip
    assert signals["a"]["knn_rate"] == pytest.approx(2 * alike / 7)
    assert signals["y"]["knn_next"] == pytest.approx(alike)
    assert signals["c"]["knn_next"] == signals["x"]["knn_next"] == 0
    assert signals["b"]["knn_newest"] == pytest.approx(1)
    assert np.isnan(signals["d"]["knn_newest"])
    assert signals["d"]["knn_sum"] == signals["d"]["knn_best"] == signals["d"]["knn_rate"] == 0


def test_the_last_place_of_an_item_in_a_session_is_where_it_matches(tmp_path: Path) -> None:
    index = made(tmp_path, walks("abac", "zz"), AGELESS)
    found, scores = index.propose("knn", ["a"], 9)
    assert found == ("c", "a", "b")
    np.testing.assert_allclose(scores[2] / scores[0], 0.7, rtol=1e-5)  # right before, right after
    both = 0.35 + 0.7 * exp(-2 / 2.5)
    np.testing.assert_allclose(scores[1] / scores[0], both / exp(-1 / 2.5), rtol=1e-5)


def test_far_away_in_a_session_is_far_away(tmp_path: Path) -> None:
    items = [f"i{place:02d}" for place in range(90)]
    parameters = AGELESS | {"knn": {"item_decay": 30.0}}
    index = made(tmp_path, visit("v", items) + visit("w", ["w"]), parameters)
    for asked, order in ((items[0], items), (items[-1], items[::-1])):
        found, scores = index.propose("knn", [asked], 90)
        by_item = dict(zip(found, scores, strict=True))
        assert by_item[order[62]] > by_item[order[63]] == by_item[order[64]] == by_item[order[89]]


@pytest.mark.parametrize("limit", ["kept", "sessions"])
def test_only_the_newest_sessions_of_an_item_count(tmp_path: Path, limit: str) -> None:
    rows = [row for n in (3, 1, 2) for row in walks(f"a{n}", days=n, name=f"{n}")]
    rows += walks("zz")
    found, _ = made(tmp_path, rows, {"knn": {limit: 2.0}}).propose("knn", ["a"], 9)
    assert set(found) == {"a", "1", "2"}


def test_only_the_newest_items_of_a_visit_are_looked_up(tmp_path: Path) -> None:
    few = {name: {"newest": 2.0} for name in ("transition", "knn")}
    index = made(tmp_path, walks("ax", "by", "cz"), few)
    assert index.propose("transition", list("cba"), 9)[0] == ("x", "y")
    assert set(index.propose("knn", list("cba"), 9)[0]) == set("abxy")


def test_a_question_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = walks("abc", "bcd", "cde", "efg", "gha")
    used, fresh = (made(tmp_path, rows) for _ in range(2))
    for visited in ("abcdefgh", "ab", "g"):
        used.candidates(list(visited), 8)
    again, once = (index.candidates(["e"], 8) for index in (used, fresh))
    assert again.items == once.items
    np.testing.assert_array_equal(again.scores, once.scores)
    np.testing.assert_array_equal(again.signals, once.signals)


# --- what the shop says of an item, and what is popular -------------------------------------------


def test_alike_by_what_the_shop_says_by_hand(tmp_path: Path) -> None:
    said: dict[str, Said] = {
        "p": (1, 1, 10.0), "q": (1, 1, 40.0), "r": (1, 2, 10.0), "s": (1, 0, None),
        "t": (2, 1, 10.0), "u": (0, 2, 8.0), "v": (0, 2, 10.0), "w": (0, 0, 10.0),
    }  # fmt: skip
    index = made(tmp_path, walks("pqrstuvw"), said=catalogue(said))
    says(index, "content", "p", {"r": 1.0, "q": 1 / 4 + 0.5, "s": exp(-1)})
    says(index, "content", "u", {"v": 8 / 10 + 0.5})  # no category: of the same brand
    says(index, "content", "t", {})  # alone in its category
    says(index, "content", "w", {})
    far = exp(-1)  # of one without a price; s was a step ago
    right = {"r": 1 + 0.6 * far, "q": 0.75 + 0.6 * far, "s": far, "p": 0.6 * far}
    says(index, "content", "sp", right)


def test_the_nearest_by_price_and_the_same_brand_and_what_is_new(tmp_path: Path) -> None:
    prices = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0, "e": 16.0}
    said: dict[str, Said] = {item: (1, 0, price) for item, price in prices.items()}
    one = {"content": {"nearest": 1.0, "unseen": 1.0}}
    index = made(tmp_path / "near", walks("abcde"), one, catalogue(said))
    says(index, "content", "c", {"b": 1 / 2, "d": 1 / 2})
    branded = said | {"a": (1, 7, 1.0), "c": (1, 7, 4.0)}
    index = made(tmp_path / "brand", walks("abcde"), one, catalogue(branded))
    says(index, "content", "c", {"a": 1 / 4 + 0.5, "b": 1 / 2, "d": 1 / 2})
    index = made(tmp_path / "new", walks("abcd"), one, catalogue(said))  # nobody visited e
    says(index, "content", "c", {"b": 1 / 2, "d": 1 / 2, "e": 1 / 4})


def test_what_was_said_last_before_the_cutoff_counts(tmp_path: Path) -> None:
    week, day, later = CUTOFF - 7 * DAY, CUTOFF - DAY, CUTOFF + DAY
    rows = [
        ("b", 1, 0, 20.0, day, day), ("b", 1, 0, 80.0, week, week),  # in any order
        ("b", 1, 0, 10.0, later, day), ("b", 1, 0, 10.0, day + 1, later), ("b", 1, 0, 10.0, CUTOFF, CUTOFF),
        ("a", 1, 0, 10.0, week, week), ("n", 1, 0, 10.0, day, CUTOFF),
    ]  # fmt: skip
    index = made(tmp_path, walks("ab"), said=told(rows))
    says(index, "content", "a", {"b": 1 / 2})
    assert "n" not in index


def test_trending_by_hand(tmp_path: Path) -> None:
    said: dict[str, Said] = {"a": (1, 0, 1.0), "b": (1, 0, 1.0), "c": (2, 0, 1.0)}
    rows = walks("a", days=7, name="a") + walks("b", days=14, name="b") + walks("cx", name="c")
    rows += [("cart", CUTOFF - DAY, EventType.add_to_cart, "b")]  # no click
    index = made(tmp_path, rows, said=catalogue(said))
    older, newer = exp(-2) / (exp(-1) + exp(-2)), exp(-1) / (exp(-1) + exp(-2))
    says(index, "trending", "a", {"a": newer, "b": older})
    says(index, "trending", "ac", {"c": 1.0, "a": 0.6 * newer, "b": 0.6 * older})
    says(index, "trending", "x", {})  # of no category
    says(index, "trending", "ax", {"a": 0.6 * newer, "b": 0.6 * older})  # but it took a step


def test_popular_by_hand(tmp_path: Path) -> None:
    rows = walks("a", days=14, name="a") + walks("b", days=7, name="b")
    rows += [("cart", CUTOFF - DAY, EventType.add_to_cart, "c")]  # no click
    index = made(tmp_path, rows)
    right = {"b": 0.51 / 0.77, "a": 0.26 / 0.77, "c": 0.0}
    says(index, "popular", "", right)
    says(index, "popular", "a", right)  # the same for everybody


def test_equal_scores_go_by_item(tmp_path: Path) -> None:
    said: dict[str, Said] = dict.fromkeys("abcd", (1, 0, 5.0))
    index = made(tmp_path, walks("ad", "ac", "ab"), said=catalogue(said))
    for source in ("transition", "sequential", "covisitation", "content"):
        assert index.propose(source, ["a"], 9)[0] == ("b", "c", "d"), source
        assert index.propose(source, ["a"], 2)[0] == ("b", "c"), source
    few = {"transition": {"neighbours": 2.0}}
    index = made(tmp_path / "few", walks("ad", "ac", "ab"), few)
    assert index.propose("transition", ["a"], 9)[0] == ("b", "c")


# --- of every source ------------------------------------------------------------------------------

KNOWN: dict[str, Said] = dict.fromkeys("abcdef", (1, 1, 5.0))


@pytest.mark.parametrize("source", OF_VISITS)
def test_an_older_click_counts_less(tmp_path: Path, source: str) -> None:
    """k and m are alike but for their age; equal ones would stand by name, k first."""
    rows = walks("xc", name="x") + walks("ck", days=80, name="old") + walks("cm", name="new")
    index = made(tmp_path, rows, said=catalogue(dict.fromkeys("ckmx", (1, 0, 1.0))))
    visited = ["x"] if source == "two_hop" else ["c"]
    found, scores = index.propose(source, visited, 20)
    by_item = dict(zip(found, scores.tolist(), strict=True))
    assert by_item["m"] > 1.5 * by_item["k"] > 0


@pytest.mark.parametrize("source", SOURCES)
def test_what_happens_later_changes_no_answer(tmp_path: Path, source: str) -> None:
    rows = walks("abc", "bcd", "cda", "def")
    later = [
        events(visit("later", list("afafag"), CUTOFF + DAY)),
        received(visit("clock", list("g"), CUTOFF), CUTOFF - 1),  # a clock that is fast
        received(visit("slow", list("afg"), CUTOFF - DAY), CUTOFF),
    ]
    said = catalogue(KNOWN)
    moved = catalogue(dict.fromkeys("abg", (2, 2, 900.0)), CUTOFF)
    before = made(tmp_path / "before", rows, said=said)
    table = pa.concat_tables([events(rows), *later])
    after = made(tmp_path / "after", table, said=pa.concat_tables([said, moved]))
    assert "g" not in after
    for visited in ([], ["a"], ["f", "a"]):
        (found, scores), (right, values) = (
            index.propose(source, visited, 20) for index in (after, before)
        )
        assert found == right
        np.testing.assert_array_equal(scores, values)


@pytest.mark.parametrize("source", ASKED)
def test_an_unknown_item_is_met_with_silence(tmp_path: Path, source: str) -> None:
    index = made(tmp_path, walks("abc", "bca", "def"), said=catalogue(KNOWN))
    assert index.propose(source, ["a"], 5)[0]
    assert index.propose(source, ["nobody knows it"], 5)[0] == ()
    with_it, without = (index.propose(source, visited, 5) for visited in (["a", "?"], ["a"]))
    assert with_it[0] == without[0]
    np.testing.assert_array_equal(with_it[1], without[1])  # it takes no step either
