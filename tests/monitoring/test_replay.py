"""A past answer, given again and explained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import ReleaseError, UsageError
from contracts.features import RANKED
from contracts.release import SCORE_TOLERANCE
from local_stack.show_parity import parity_line, parity_text, replay_text
from monitoring.replay import Replay, replay
from tests.monitoring.proven_shop import MINUTE, NOON, ProvenShop

K = 10


@pytest.fixture
def shop(tmp_path: Path) -> ProvenShop:
    made = ProvenShop(tmp_path)
    made.visit("s", ["i07", "i08", "i03"], NOON - 10 * MINUTE)
    return made


def answered(shop: ProvenShop, **asked: Any) -> dict[str, Any]:
    answer = shop.ask(NOON, K, session_id="s", **asked)
    shop.store()
    return answer


def again(shop: ProvenShop, answer: dict[str, Any], item: str | None = None) -> Replay:
    return replay(shop.settings, answer["request_id"], item)


def test_the_same_items_in_the_same_order_with_the_same_scores(shop: ProvenShop) -> None:
    answer = answered(shop)
    found = again(shop, answer)
    assert [each.item_id for each in found.items] == [each["item_id"] for each in answer["items"]]
    assert [each.replayed_place for each in found.items] == list(range(1, K + 1))
    assert found.same
    assert found.largest_score_difference <= SCORE_TOLERANCE
    assert (found.release, found.session_id, found.visited) == ("r1", "s", ("i07", "i08", "i03"))
    assert json.loads(json.dumps(found.as_dict()))["same"] is True


def test_contributions_add_up_to_the_score_and_follow_its_features(shop: ProvenShop) -> None:
    for each in again(shop, answered(shop)).items:
        assert set(each.contributions) == set(each.values) == set(RANKED)
        total = each.base + sum(each.contributions.values())
        assert total == pytest.approx(each.replayed, abs=1e-9)
        sizes = np.abs(list(each.contributions.values()))
        assert (np.diff(sizes) <= 0).all()
        # the small ranker was taught by three features alone
        assert next(iter(each.contributions)) in ("price", "views_7d", "best_rank")


def test_sources_are_those_of_the_answer_best_rank_first(shop: ProvenShop) -> None:
    answer = answered(shop)
    found = again(shop, answer)
    assert [list(each.sources) for each in found.items] == [
        each["sources"] for each in answer["items"]
    ]


def test_one_item_alone_keeps_its_place(shop: ProvenShop) -> None:
    answer = answered(shop)
    third = answer["items"][2]["item_id"]
    found = again(shop, answer, third)
    assert [(each.item_id, each.place, each.replayed_place) for each in found.items] == [
        (third, 3, 3)
    ]
    with pytest.raises(UsageError, match="holds no item 'i99'; it holds i"):
        again(shop, answer, "i99")


def test_another_model_gives_another_answer(shop: ProvenShop) -> None:
    """The model's file was replaced by one that scores the other way round."""
    answer = answered(shop)
    path = shop.settings.models / "ranker/1/model.txt"
    lines = path.read_text().splitlines()
    turned = [
        "leaf_value=" + " ".join(f"{-float(value)!r}" for value in line[11:].split())
        if line.startswith("leaf_value=")
        else line
        for line in lines
    ]
    sizes = [line for line in turned if not line.startswith("tree_sizes=")]
    path.write_text("\n".join(sizes) + "\n")
    found = again(shop, answer)
    assert not found.same
    assert not found.same_order
    assert "ANOTHER ANSWER" in replay_text(found, whole=False)


def test_rules_of_the_release_are_told(shop: ProvenShop) -> None:
    answer = answered(shop)
    found = again(shop, answer)
    assert (found.rules_version, found.rules, found.effects) == (
        "default",
        {"version": "default"},
        (),
    )
    rules = shop.settings.releases / "r1/rules.json"
    rules.write_text('{"version": "default", "exclude_seen": true}')
    with pytest.raises(ReleaseError, match="'default' names the rules without a file"):
        again(shop, answer)
    rules.write_text('{"version": "another"}')
    with pytest.raises(ReleaseError, match=r"names the rules default, its file holds another"):
        again(shop, answer)


def test_an_unknown_answer_says_how_long_the_lake_takes(shop: ProvenShop) -> None:
    with pytest.raises(UsageError, match=r"no answer 'nothing' is in the lake .*up to 15 s"):
        replay(shop.settings, "nothing")


def test_an_answer_that_was_not_sampled_says_so(shop: ProvenShop) -> None:
    answer = shop.ask(NOON, session_id="s")
    shop.impressions.messages = shop.impressions.messages[:1]
    shop.store()
    with pytest.raises(UsageError, match="no rows logged"):
        again(shop, answer)


def test_what_was_deleted_of_a_release_is_named(shop: ProvenShop) -> None:
    answer = answered(shop)
    shutil.rmtree(shop.settings.models)
    with pytest.raises(ReleaseError, match=r"release r1: its ranker was deleted: .*model\.txt"):
        again(shop, answer)
    shutil.rmtree(shop.settings.releases)
    with pytest.raises(ReleaseError, match=r"the release r1 .* was deleted"):
        again(shop, answer)


# --- for people ------------------------------------------------------------------------------------


def test_the_text_of_a_replay_names_sources_values_and_contributions(shop: ProvenShop) -> None:
    answer = answered(shop)
    found = again(shop, answer)
    short, whole = replay_text(found, whole=False), replay_text(found, whole=True)
    assert "the same answer; release r1" in short
    assert f"1. {answer['items'][0]['item_id']}" in short
    assert "rules default: changed nothing here" in short
    assert "popular #" in short
    assert len(short) < len(whole)
    assert all(f" {name} " in whole for name in RANKED)


def test_the_text_of_the_proof_names_what_differs_and_what_was_left_out(shop: ProvenShop) -> None:
    for row in shop.online.rows["item_activity"].values():
        row["views_7d"] += 1.0
    shop.ask(NOON, K, session_id="s")
    shop.publications = shop.publications[1:]
    text = parity_text(shop.prove())
    assert text.startswith(f"differing: {3 * K} of ")
    assert "views_7d" in text
    assert f"code {K}" in text
    assert "no materialisation of item_catalogue is on record" in text
    assert "views_1d" not in text


def test_the_line_of_status() -> None:
    assert parity_line(None) == "parity: never proved (./nextclick parity)"
