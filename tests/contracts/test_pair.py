"""Session x item features."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.features import of_view
from contracts.pair import CatalogueColumns, pair_features

NAMES = {feature.name for feature in of_view("session_item")}
ITEMS = ("a", "b", "c", "d", "e")
nan = float("nan")


def candidates(items: tuple[str, ...], ranks: list[list[float]]) -> CandidateSet:
    array = np.array(ranks, dtype=np.float32).reshape(len(items), len(SOURCES))
    return CandidateSet(items, (1 / array).astype(np.float32), array, unknown_signals(len(items)))


def row(*ranks: float) -> list[float]:
    """Ranks of the first sources; the others did not propose."""
    return [*ranks, *[nan] * (len(SOURCES) - len(ranks))]


def catalogue(category: list[int], brand: list[int], price: list[float]) -> CatalogueColumns:
    views = np.arange(len(price), dtype=np.float32) + 1
    return CatalogueColumns.of(
        {"category_id": category, "brand_id": brand, "price": price, "views_7d": views}
    )


codes = st.integers(0, 2)
prices = st.sampled_from([nan, 0.0, 5.0, 20.0])
catalogues = st.integers(0, 5).flatmap(
    lambda n: st.builds(
        catalogue, *(st.lists(kind, min_size=n, max_size=n) for kind in (codes, codes, prices))
    )
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], CatalogueColumns, CandidateSet, CatalogueColumns]:
    past, now = draw(catalogues), draw(catalogues)
    visited = draw(
        st.lists(st.sampled_from(ITEMS), min_size=len(past.price), max_size=len(past.price))
    )
    count = len(now.price)
    rank = st.just(nan) | st.integers(1, 50).map(float)
    ranked = st.lists(rank, min_size=len(SOURCES), max_size=len(SOURCES))
    ranks = draw(st.lists(ranked, min_size=count, max_size=count))
    return visited, past, candidates(ITEMS[:count], ranks), now


@given(st.data(), cases())
def test_the_order_of_the_candidates_orders_the_rows(
    data: st.DataObject,
    case: tuple[list[str], CatalogueColumns, CandidateSet, CatalogueColumns],
) -> None:
    visited, past, found, now = case
    columns = pair_features(visited, past, found, now)
    assert set(columns) == NAMES
    order = data.draw(st.permutations(range(len(found))))
    moved = pair_features(visited, past, found.take(order), now.take(order))
    for name, values in columns.items():
        assert values.shape == (len(found),)
        assert values.dtype == np.float32
        assert not np.isinf(values).any(), name
        assert np.array_equal(values[np.array(order, dtype=np.intp)], moved[name], equal_nan=True)


def test_by_hand() -> None:
    visited = ["a", "b", "a"]
    past = catalogue([1, 2, 1], [7, 0, 7], [10.0, nan, 40.0])
    found = candidates(("a", "b", "z"), [row(1, nan, 3), row(nan, 2), row()])
    now = catalogue([1, 2, 0], [7, 8, 0], [20.0, 0.0, nan])
    columns = pair_features(visited, past, found, now)
    expected = {
        f"{SOURCES[0]}_rank": [1, nan, nan],
        f"{SOURCES[2]}_rank": [3, nan, nan],
        f"{SOURCES[1]}_score": [nan, 0.5, nan],
        "sources_found": [2, 1, 0],
        "best_rank": [1, 2, nan],
        "times_in_session": [2, 1, 0],
        "steps_since_visited": [0, 1, nan],
        "followed_last": [0, 1, 0],
        "repeat_share": [1 / 3] * 3,
        "last_views_7d": [3] * 3,
        "views_to_last": [log(2 / 4), log(3 / 4), 0],
        "same_category": [1, 0, nan],
        "category_share": [2 / 3, 1 / 3, nan],
        "same_brand": [1, 0, nan],
        "brand_share": [1, 0, nan],
        "price_to_last": [log(20 / 40), nan, nan],
        "price_to_mean": [log(20 / 20), nan, nan],
    }
    for name, values in expected.items():
        assert columns[name].tolist() == pytest.approx(values, nan_ok=True), name


def test_nothing_known_is_missing_and_not_zero() -> None:
    found = candidates(("a",), [row()])
    columns = pair_features([], CatalogueColumns.unknown(0), found, CatalogueColumns.unknown(1))
    counts = {"sources_found": 0, "times_in_session": 0, "followed_last": 0}
    for name, values in columns.items():
        assert values.tolist() == pytest.approx([counts.get(name, nan)], nan_ok=True), name


def test_missing_ids_become_unknown_and_large_ones_stay_exact() -> None:
    ids = np.array([None, nan, 2**52 - 1], dtype=object)
    columns = CatalogueColumns.of(
        {
            "category_id": ids,
            "brand_id": [1, 2, 3],
            "price": np.array([1, None, nan], dtype=object),
            "views_7d": np.array([1, 2, None], dtype=object),
        }
    )
    assert columns.category_id.tolist() == [0, 0, 2**52 - 1]
    assert columns.brand_id.dtype == np.int64
    assert np.isnan(columns.price[1:]).all()


def test_a_candidate_set_checks_its_shape_and_names_its_sources() -> None:
    with pytest.raises(ValueError, match="expected"):
        CandidateSet(
            ("a",), np.zeros((1, 2), np.float32), np.zeros((1, 4), np.float32), unknown_signals(1)
        )
    found = candidates(("a", "b"), [row(3, nan, 1), row()])
    assert found.sources_of(0) == [SOURCES[2], SOURCES[0]]
    assert found.sources_of(1) == []
    assert len(CandidateSet.empty()) == 0
