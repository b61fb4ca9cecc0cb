"""Feature order, defaults and the ids of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import features
from contracts.errors import UsageError
from contracts.features import (
    BY_NAME,
    FEATURES,
    RANKED,
    VIEWS,
    Feature,
    fingerprint,
    matrix,
    of_view,
    text_id,
)
from contracts.moment import moment_features

values = st.floats(width=32, allow_nan=False)


@given(st.permutations(RANKED), st.lists(values, min_size=3, max_size=3))
def test_the_order_of_the_columns_given_does_not_matter(
    names: list[str], first: list[float]
) -> None:
    columns = {name: [value + place for value in first] for place, name in enumerate(RANKED)}
    shuffled = {name: columns[name] for name in names}
    assert np.array_equal(matrix(columns, 3), matrix(shuffled, 3), equal_nan=True)
    with np.errstate(over="ignore"):
        expected = np.array([columns[name] for name in names], dtype=np.float32).T
    assert np.array_equal(matrix(columns, 3, names), expected)


def test_one_value_stands_for_all_rows_and_none_is_missing() -> None:
    found = matrix(
        {"price": 5, "hour": np.array([1, None, np.nan], dtype=object)}, 3, ("hour", "price")
    )
    assert found.dtype == np.float32
    assert found[:, 1].tolist() == [5, 5, 5]
    assert found[0, 0] == 1
    assert np.isnan(found[1:, 0]).all()


def test_a_missing_value_takes_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BY_NAME, "price", Feature("price", "item_catalogue", "", default=-1.0))
    prices = np.array([2.0, np.nan, None], dtype=object)
    assert matrix({"price": prices}, 3, ("price",)).tolist() == [[2], [-1], [-1]]


@pytest.mark.parametrize("lost", RANKED[:3])
def test_a_column_that_is_lost_on_the_way_is_an_error(lost: str) -> None:
    columns = {name: 0.0 for name in RANKED if name != lost}
    with pytest.raises(UsageError, match=f"needs the column '{lost}'"):
        matrix(columns, 1)


def test_an_undeclared_column_is_an_error() -> None:
    with pytest.raises((UsageError, KeyError), match="colour"):
        matrix({"colour": [1.0]}, 1, ("colour",))


def test_no_rows_make_an_empty_matrix() -> None:
    assert matrix({name: [] for name in RANKED}, 0).shape == (0, len(RANKED))


def test_every_feature_has_a_view_a_meaning_and_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(FEATURES)
    assert {feature.view for feature in FEATURES} == set(VIEWS)
    assert all(feature.meaning for feature in FEATURES)
    assert [f for view in VIEWS for f in of_view(view)] == list(FEATURES)
    assert all(BY_NAME[name].dtype == "float32" for name in RANKED)


def test_the_fingerprint_is_of_order_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    assert before == fingerprint(RANKED)
    assert before != fingerprint(RANKED[::-1])
    assert before != fingerprint(RANKED[:-1])
    monkeypatch.setitem(BY_NAME, "price", Feature("price", "item_catalogue", "", default=0.0))
    assert before != fingerprint()
    with pytest.raises(UsageError, match="does not declare: colour"):
        fingerprint(("price", "colour"))


@given(st.text())
def test_a_text_is_a_number_of_52_bits(text: str) -> None:
    number = text_id(text)
    assert (number == 0) == (text == "")
    assert 0 <= number < 2**52
    assert int(np.float64(number)) == number


def test_the_number_of_a_text_never_changes() -> None:
    """Stored in tables and online: another value would make every category an unknown one."""
    assert text_id(None) == 0
    assert text_id("electronics") == 657699683990070
    assert len({text_id(f"category {n}") for n in range(10_000)}) == 10_000


def test_the_moment() -> None:
    assert set(moment_features(0)) == {feature.name for feature in of_view("moment")}
    assert moment_features(0) == {"hour": 0, "weekday": 3}  # 1970-01-01, a Thursday
    assert moment_features(1_767_225_600_000 - 1) == {"hour": 23, "weekday": 2}
    assert set(features.RANKED) >= {"hour", "weekday"}
