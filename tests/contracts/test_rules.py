"""Business rules: what each does to a list whose right order is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.features import text_id
from contracts.rules import COLUMNS, DEFAULT, OLDEST, Rules, arrange, known_of, read_rules

SHOES, HATS, ACME = text_id("shoes"), text_id("hats"), text_id("acme")
NAN = float("nan")
ITEMS = "abcdef"
KNOWN: dict[str, list[float]] = {
    "category_id": [SHOES, SHOES, SHOES, HATS, 0, 0],
    "brand_id": [1, 1, ACME, 0, 0, 0],
    "price": [10, 20, 30, 40, NAN, NAN],
    "available": [1, 1, 1, 1, NAN, 1],
    "days_since_new": [30, 30, 30, 30, 30, NAN],
}
"""By score a is the best. a, b, c are shoes and d a hat; of e and f nothing is known. Nobody viewed f."""
Told = tuple[str, str, int | None, int | None]


def columns(known: dict[str, list[float]]) -> dict[str, Any]:
    kinds = {name: np.int64 if name.endswith("_id") else np.float32 for name in COLUMNS}
    return {name: np.array(known[name], kinds[name]) for name in COLUMNS}


def listed(rules: dict[str, Any], k: int = 6, last: int = 0, **changed: Any) -> str:
    return arranged(rules, k, last, **changed)[0]


def told(rules: dict[str, Any], k: int = 6, **changed: Any) -> list[Told]:
    return arranged(rules, k, **changed)[1]


def arranged(
    rules: dict[str, Any], k: int, last: int = 0, **changed: list[float]
) -> tuple[str, list[Told]]:
    """The list and what was told; the scores fall by 1 from item to item, the last has 1."""
    known = columns(KNOWN | changed)
    items = "abcdefghi"[: len(known["price"])]
    scores = np.arange(len(items), 0, -1, dtype=np.float32)
    found = arrange(Rules.model_validate(rules), items, scores, known, k, last)
    effects = [(each.rule, each.item, each.before, each.after) for each in found.effects]
    return "".join(items[row] for row in found.order), effects


def test_without_rules_the_order_is_that_of_the_scores() -> None:
    assert listed({}) == "abcdef"
    assert listed({}, k=2) == "ab"
    assert told({}) == []
    equal = np.array([1, 2, 2, 2, 1, 1], np.float32)
    found = arrange(DEFAULT, ITEMS, equal, columns(KNOWN), 5)
    assert found.order.tolist() == [1, 2, 3, 0, 4]


# --- what cannot be bought -----------------------------------------------------------------------


def test_what_cannot_be_bought_is_out_and_what_is_not_known_stays() -> None:
    available = [1, 0, 1, 1, NAN, 1]
    assert listed({}, available=available) == "acdef"
    assert told({}, available=available) == [("exclude_unavailable", "b", 2, None)]
    assert told({}, k=1, available=available) == []  # b was not in that list anyway
    assert listed({"exclude_unavailable": False}, available=available) == "abcdef"


def test_no_rule_brings_back_what_cannot_be_bought() -> None:
    rules = {
        "pins": [{"item": "b", "place": 1}],
        "shifts": [{"items": ["b"], "by": 10}],
        "freshness": {"least": 6, "new_within_days": 7},
    }
    young = [30, 1, 30, 30, 30, 30]
    assert listed(rules, available=[1, 0, 1, 1, 1, 1], days_since_new=young) == "acdef"


# --- boost and bury ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "boosted", "buried"),
    [
        ({"items": ["f", "b"]}, "bfacde", "acdebf"),
        ({"category": "hats"}, "dabcef", "abcefd"),
        ({"brand": "acme"}, "cabdef", "abdefc"),
        ({"price_from": 30}, "cdabef", "abefcd"),
        ({"price_to": 20}, "abcdef", "cdefab"),
        ({"price_from": 20, "price_to": 30}, "bcadef", "adefbc"),
        ({"category": "shoes", "price_from": 20}, "bcadef", "adefbc"),
        ({"new_within_days": 7}, "fabcde", "abcdef"),
    ],
)
def test_boost_and_bury_move_what_matches_and_nothing_else(
    match: dict[str, Any], boosted: str, buried: str
) -> None:
    """By 10 standard deviations: to the top, or to the bottom, in the order of the scores."""
    assert listed({"shifts": [{**match, "by": 10}]}) == boosted
    assert listed({"shifts": [{**match, "by": -10}]}) == buried


def test_a_shift_is_measured_in_standard_deviations_of_the_scores() -> None:
    """One is 1.708 here: of 4, c comes to 4.85 by 0.5, to 5.2 by 0.7 and to 6.05 by 1.2."""
    assert listed({"shifts": [{"items": ["c"], "by": 0.5}]}) == "abcdef"
    assert listed({"shifts": [{"items": ["c"], "by": 0.7}]}) == "acbdef"
    assert listed({"shifts": [{"items": ["c"], "by": 1.2}]}) == "cabdef"


def test_shifts_add_up() -> None:
    shifts = [{"items": ["c"], "by": 0.7}, {"brand": "acme", "by": 0.5}]
    assert listed({"shifts": shifts}) == "cabdef"
    shifts = [{"items": ["c"], "by": 5}, {"brand": "acme", "by": -5}]
    assert listed({"shifts": shifts}) == "abcdef"


def test_a_shift_of_equal_scores_moves_too() -> None:
    rules = Rules.model_validate({"shifts": [{"items": ["c"], "by": 0.1}]})
    found = arrange(rules, ITEMS, np.zeros(6, np.float32), columns(KNOWN), 3)
    assert found.order.tolist() == [2, 0, 1]


def test_what_shifts_did_is_told() -> None:
    assert told({"shifts": [{"items": ["c"], "by": 0.7}]}) == [("boost", "c", 3, 2)]
    assert told({"shifts": [{"items": ["a"], "by": -0.7}]}) == [("bury", "a", 1, 2)]
    assert told({"shifts": [{"items": ["f"], "by": 10}]}, k=3) == [("boost", "f", None, 1)]
    assert told({"shifts": [{"items": ["a"], "by": -10}]}, k=3) == [("bury", "a", 1, None)]
    assert told({"shifts": [{"items": ["a"], "by": 10}]}) == []  # it stood there anyway


# --- pins ----------------------------------------------------------------------------------------


def test_a_pin_stands_at_its_place() -> None:
    assert listed({"pins": [{"item": "e", "place": 2}]}, k=3) == "aeb"
    assert listed({"pins": [{"item": "a", "place": 3}]}, k=4) == "bcad"
    pins = [{"item": "f", "place": 3}, {"item": "d", "place": 1}, {"item": "a", "place": 2}]
    assert listed({"pins": pins}) == "dafbce"
    assert listed({"pins": [{"item": "unknown", "place": 1}]}, k=2) == "ab"


def test_what_pins_did_is_told() -> None:
    assert told({"pins": [{"item": "e", "place": 2}]}, k=3) == [("pin", "e", None, 2)]
    assert told({"pins": [{"item": "c", "place": 1}]}, k=3) == [("pin", "c", 3, 1)]
    assert told({"pins": [{"item": "a", "place": 1}]}) == []


def test_a_pin_for_a_category_goes_before_the_pin_for_all() -> None:
    for_all = {"item": "e", "place": 1}
    for_shoes = {"item": "f", "place": 1, "when_category": "shoes"}
    for pins in ([for_all, for_shoes], [for_shoes, for_all]):
        assert listed({"pins": pins}, k=2, last=SHOES) == "fa"
        assert listed({"pins": pins}, k=2, last=HATS) == "ea"
        assert listed({"pins": pins}, k=2) == "ea"


def test_an_item_pinned_twice_stands_where_the_category_says() -> None:
    pins = [{"item": "f", "place": 1}, {"item": "f", "place": 3, "when_category": "hats"}]
    assert listed({"pins": pins}, k=3, last=HATS) == "abf"
    assert listed({"pins": pins}, k=3, last=SHOES) == "fab"


# --- quota and freshness -------------------------------------------------------------------------


def test_a_quota_lets_through_so_many_of_a_category() -> None:
    assert listed({"category_quota": {"most": 1}}, k=4) == "adef"
    assert listed({"category_quota": {"most": 2}}, k=3) == "abd"
    assert listed({"category_quota": {"most": 3}}, k=4) == "abcd"


def test_items_without_a_category_are_never_too_many() -> None:
    assert listed({"category_quota": {"most": 1}}, k=4, category_id=[0] * 6) == "abcd"


def test_a_quota_never_makes_a_list_shorter() -> None:
    assert listed({"category_quota": {"most": 1}}, k=5) == "adefb"
    assert listed({"category_quota": {"most": 1}}, k=6) == "adefbc"
    assert listed({"category_quota": {"most": 1}}, k=3, category_id=[SHOES] * 6) == "abc"


def test_what_a_quota_put_out_is_told() -> None:
    effects = told({"category_quota": {"most": 1}}, k=4)
    out = {("category_quota", "b", 2, None), ("category_quota", "c", 3, None)}
    assert out <= set(effects)
    assert told({"category_quota": {"most": 3}}) == []


def test_a_freshness_floor_lets_new_items_take_the_lowest_places() -> None:
    rules = {"freshness": {"least": 1, "new_within_days": 7}}
    assert listed(rules, k=3) == "abf"
    assert told(rules, k=3) == [("freshness", "f", None, 3)]
    two = {"freshness": {"least": 2, "new_within_days": 7}}
    assert listed(two, k=3, days_since_new=[30, 30, 7, 8, 7, 30]) == "ace"
    assert listed(two, k=3, days_since_new=[30, 30, 30, 30, 7, 1]) == "aef"


def test_a_floor_that_is_reached_changes_nothing() -> None:
    rules = {"freshness": {"least": 1, "new_within_days": 7}}
    assert listed(rules, k=3, days_since_new=[30, 3, 30, 30, 30, NAN]) == "abc"


def test_a_floor_is_as_high_as_there_are_new_items_and_places() -> None:
    rules = {"freshness": {"least": 5, "new_within_days": 7}}
    assert listed(rules, k=3) == "abf"
    assert listed(rules, k=2, days_since_new=[30, 30, 1, 1, 1, 1]) == "cd"


# --- together ------------------------------------------------------------------------------------

SHOP: dict[str, Any] = {
    "category_id": [SHOES, SHOES, SHOES, SHOES, HATS, SHOES, 0, 0, 0],
    "brand_id": [0] * 9,
    "price": [NAN] * 9,
    "available": [0, 1, 1, 1, 1, 1, 1, 1, 1],
    "days_since_new": [30, 30, 30, 30, 30, 30, 30, 30, 2],
}
ALL: dict[str, Any] = {
    "shifts": [{"category": "hats", "by": 10}],
    "category_quota": {"most": 1},
    "freshness": {"least": 1, "new_within_days": 7},
    "pins": [{"item": "g", "place": 1}],
}


def test_all_rules_together() -> None:
    """a is gone; the hat goes up: ebcdfghi; one of a category: ebgh; a new one: ebgi; g is pinned."""
    assert listed(ALL, k=4, **SHOP) == "gebi"
    effects = told(ALL, k=4, **SHOP)
    assert {
        ("exclude_unavailable", "a", 1, None), ("pin", "g", None, 1), ("boost", "e", None, 2),
        ("freshness", "i", None, 4), ("category_quota", "c", 3, None), ("category_quota", "d", 4, None),
    } <= set(effects)  # fmt: skip


@pytest.mark.parametrize(
    ("without", "order"),
    [("shifts", "gbei"), ("category_quota", "gebc"), ("freshness", "gebh"), ("pins", "ebgi")],
)
def test_each_of_them_has_its_part(without: str, order: str) -> None:
    rest = {name: rule for name, rule in ALL.items() if name != without}
    assert listed(rest, k=4, **SHOP) == order


# --- what is left out, and the name --------------------------------------------------------------


def test_what_is_left_out_of_the_candidates() -> None:
    visited, asked = ["a", "b", "a", "c"], ["x", "c"]
    assert DEFAULT.left_out(visited, asked) == ["x", "c"]
    assert DEFAULT.left_out(visited, []) == ["c"]
    assert Rules(exclude_current=False).left_out(visited, ["x"]) == ["x"]
    assert Rules(exclude_seen=True).left_out(visited, asked) == ["x", "c", "a", "b"]
    assert DEFAULT.left_out([], []) == []


def test_a_request_overrides_what_the_rules_say_of_seen_items() -> None:
    visited = ["a", "b", "c"]
    assert DEFAULT.left_out(visited, [], seen=True) == ["a", "b", "c"]
    assert Rules(exclude_seen=True).left_out(visited, [], seen=False) == ["c"]
    assert Rules(exclude_current=False, exclude_seen=True).left_out(visited, [], seen=False) == []


def test_a_name_follows_the_content_unless_a_version_is_given() -> None:
    assert Rules(version="spring").name == "spring"
    assert Rules().name == Rules(exclude_seen=False).name
    contents = [{}, {"exclude_seen": True}, *({name: rule} for name, rule in ALL.items())]
    names = {Rules.model_validate(content).name for content in contents}
    assert len(names) == len(contents) == 6
    assert all(len(name) == 12 for name in names)


def test_a_file_that_was_written_again_has_the_same_name(tmp_path: Path) -> None:
    rules = Rules.model_validate(ALL)
    (tmp_path / "rules.json").write_text(rules.model_dump_json(indent=2, exclude_defaults=True))
    again = read_rules(tmp_path / "rules.json")
    assert (again, again.name) == (rules, rules.name)


def test_only_rules_that_move_items_make_another_order() -> None:
    assert not Rules(exclude_seen=True, exclude_unavailable=False, exclude_current=False).moves
    for name in ("shifts", "category_quota", "freshness", "pins"):
        assert Rules.model_validate({name: ALL[name]}).moves


# --- whatever the rules --------------------------------------------------------------------------

names = st.sampled_from([*ITEMS, "other"])
categories = st.sampled_from(["shoes", "hats"])
pin = st.fixed_dictionaries(
    {"item": names, "place": st.integers(1, 8)}, optional={"when_category": categories}
)
once_each = (
    lambda pin: (pin["item"], pin.get("when_category")),
    lambda pin: (pin["place"], pin.get("when_category")),
)
matches = st.one_of(
    st.builds(lambda items: {"items": items}, st.lists(names, min_size=1, max_size=3)),
    st.builds(lambda category: {"category": category}, categories),
    st.builds(lambda price: {"price_from": price}, st.integers(0, 50)),
    st.just({"new_within_days": 7}),
)
shifts = st.builds(lambda match, by: {**match, "by": by}, matches, st.sampled_from([-3, -0.5, 1]))
rule_files = st.fixed_dictionaries(
    {
        "pins": st.lists(pin, max_size=4, unique_by=once_each),
        "shifts": st.lists(shifts, max_size=3),
        "exclude_unavailable": st.booleans(),
    },
    optional={
        "category_quota": st.fixed_dictionaries({"most": st.integers(1, 3)}),
        "freshness": st.fixed_dictionaries(
            {"least": st.integers(1, 8), "new_within_days": st.just(7)}
        ),
    },
)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[float], dict[str, list[float]]]:
    count = draw(st.integers(1, len(ITEMS)))
    values: dict[str, list[float]] = {
        "category_id": [0, SHOES, HATS],
        "brand_id": [0, ACME],
        "price": [NAN, 10, 40],
        "available": [0, 1, NAN],
        "days_since_new": [NAN, 2, 30],
    }
    known = {
        name: draw(st.lists(st.sampled_from(of), min_size=count, max_size=count))
        for name, of in values.items()
    }
    return draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count)), known


Found = tuple[list[float], dict[str, list[float]]]


@given(rule_files, candidates(), st.integers(0, 8), st.sampled_from([0, SHOES, HATS]))
def test_any_rules_give_a_list_of_candidates_without_repeats(
    file: dict[str, Any], found: Found, k: int, last: int
) -> None:
    scores, known = np.array(found[0], np.float32), columns(found[1])
    rules, items = Rules.model_validate(file), ITEMS[: len(scores)]
    once, again = (arrange(rules, items, scores, known, k, last) for _ in range(2))
    order = once.order.tolist()
    assert order == again.order.tolist()
    assert once.effects == again.effects
    can = np.flatnonzero((known["available"] != 0) | (not rules.exclude_unavailable)).tolist()
    assert len(order) == len(set(order)) == min(k, len(can))
    assert set(order) <= set(can)
    places = {items[row]: place + 1 for place, row in enumerate(order)}
    assert [each.after for each in once.effects] == [places.get(of.item) for of in once.effects]


def test_a_rule_that_moved_nothing_is_not_told() -> None:
    """The boost is too small to pass anything: what moves d is the pin above it."""
    rules = {"shifts": [{"items": ["d"], "by": 0.01}], "pins": [{"item": "f", "place": 1}]}
    assert [name for name, *_ in told(rules, k=6)] == ["pin"]
    quota = {"category_quota": {"most": 50}, "pins": [{"item": "f", "place": 1}]}
    assert [name for name, *_ in told(quota, k=6)] == ["pin"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"version": "none"}, "names releases without rules"),
        ({"shifts": [{"price_from": float("inf"), "by": 1}]}, "finite"),
        ({"freshness": {"least": 1, "new_within_days": 30}}, "less than 30"),
    ],
)
def test_what_a_release_could_not_hold_is_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rules.model_validate(rules)


def test_what_was_clicked_long_ago_is_not_new() -> None:
    """Neither has an age: one never had a click, of the other's clicks nothing is left to count."""
    ranks = np.full((2, len(SOURCES)), NAN, np.float32)
    scores = ranks.copy()
    scores[:, SOURCES.index("popular")] = [0, 0.001]
    found = CandidateSet(("never", "once"), scores, ranks, unknown_signals(2))
    nothing = {name: np.full(2, NAN, np.float32) for name in COLUMNS}
    age = known_of(nothing, found)["days_since_new"]
    assert np.isnan(age[0])
    assert age[1] == OLDEST
