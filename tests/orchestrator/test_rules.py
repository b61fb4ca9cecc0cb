"""Business rules on the way of a request: what they do to an answer, and that it is logged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import rules as rules_module
from contracts.events import Impression, ServedRows, Topic
from contracts.features import RANKED
from contracts.release import ReleaseStore
from contracts.rules import RULES_FILE
from orchestrator import pipeline
from orchestrator.ports import ItemRows
from tests.orchestrator.fakes import ITEMS, FakeStore, FakeWorld, settings_in
from tests.orchestrator.test_pipeline import AFTER_I7, MINUTE, NOW, ROOMY, ask, click, ids, send


class Catalogue(FakeStore):
    """Of `withdrawn` items it says that they cannot be bought; of `untold` ones it has no row."""

    withdrawn: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    async def items(self, items: Sequence[str], names: Sequence[str], moment: int) -> ItemRows:
        rows = await super().items(items, names, moment)
        sold = [item not in self.withdrawn and item not in self.untold for item in items]
        told = np.array([item not in self.untold for item in items])
        version = np.where(told, rows.versions["item_catalogue"], -1)
        columns = {**rows.columns, "available": np.array(sold, dtype=np.int64)}
        return ItemRows(columns, {"item_catalogue": version})


def switch(world: FakeWorld, release: str, rules: dict[str, Any]) -> None:
    world.activate(release, rules_version="mine")
    folder = ReleaseStore(world.settings.releases).path(release)
    (folder / RULES_FILE).write_text(json.dumps({"version": "mine", **rules}))
    asyncio.run(world.parts.follower.check())


def a_world(folder: Path, rules: dict[str, Any]) -> FakeWorld:
    world = FakeWorld(settings_in(folder, **ROOMY), store=Catalogue())
    switch(world, "r1", rules)
    send(world, click("i5", NOW - MINUTE), click("i7"))
    return world


@pytest.fixture
def world(tmp_path: Path) -> FakeWorld:
    return a_world(tmp_path, {})


def served(world: FakeWorld) -> ServedRows:
    """The newest."""
    logged: ServedRows = world.impressions.of(Topic.served)[-1]
    return logged


def catalogue(world: FakeWorld) -> Catalogue:
    assert isinstance(world.store, Catalogue)
    return world.store


def test_the_item_that_is_looked_at_is_never_an_answer(world: FakeWorld) -> None:
    answer = ask(world, session_id="s", k=100)
    assert "i7" not in ids(answer)
    assert "i5" in ids(answer)


@pytest.mark.parametrize("of_release", [False, True])
def test_what_was_seen_is_left_out_where_the_release_or_the_request_says_so(
    tmp_path: Path, of_release: bool
) -> None:
    world = a_world(tmp_path, {"exclude_seen": of_release})
    for said, left_out in ((None, of_release), (True, True), (False, False)):
        body = {} if said is None else {"exclude_seen": said}
        answer = ask(world, session_id="s", k=100, **body)
        assert ("i5" not in ids(answer)) == left_out, said
        assert answer["degraded"] == []


def test_an_item_that_cannot_be_bought_is_never_an_answer(world: FakeWorld) -> None:
    catalogue(world).withdrawn = ("i8", "i10", "i50")
    assert ids(ask(world, session_id="s", k=4)) == ["i9", "i11", "i12", "i13"]
    assert served(world).rules == [
        {"rule": "exclude_unavailable", "item": "i8", "before": 1, "after": None},
        {"rule": "exclude_unavailable", "item": "i10", "before": 3, "after": None},
    ]
    assert not {"i8", "i10", "i50"} & set(ids(ask(world, session_id="s", k=100)))


def test_what_cannot_be_bought_is_an_answer_where_the_rules_say_so(tmp_path: Path) -> None:
    world = a_world(tmp_path, {"exclude_unavailable": False})
    catalogue(world).withdrawn = ("i8",)
    assert ids(ask(world, session_id="s", k=2)) == ["i8", "i9"]


def test_an_item_that_the_catalogue_does_not_know_can_be_an_answer(world: FakeWorld) -> None:
    before = ids(ask(world, session_id="s", k=4))
    catalogue(world).untold = tuple(ITEMS)
    assert ids(ask(world, session_id="s", k=4)) == before


def test_a_pin_that_no_source_proposes_stands_at_its_place(tmp_path: Path) -> None:
    world = a_world(tmp_path, {"pins": [{"item": "i190", "place": 2}]})
    answer = ask(world, session_id="s", k=3)
    assert ids(answer)[1] == "i190"
    assert answer["items"][1]["sources"] == []
    assert "i190" not in ids(ask(world, session_id="s", k=3, exclude=["i190"]))
    logged: ServedRows = world.impressions.of(Topic.served)[0]
    assert logged.rules == [{"rule": "pin", "item": "i190", "before": None, "after": 2}]
    assert logged.items == ids(answer)
    assert logged.rows[1][RANKED.index("price")] == 190


def test_a_pin_for_a_category_holds_while_an_item_of_it_is_looked_at(tmp_path: Path) -> None:
    """Every item of the fake shop has the category whose number is 1."""
    pins = [
        {"item": "i14", "place": 1},
        {"item": "i15", "place": 1, "when_category": "the shop's"},
        {"item": "i16", "place": 2, "when_category": "another"},
    ]
    world = a_world(tmp_path, {"pins": pins})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules_module, "text_id", lambda text: 1 if text == "the shop's" else 2)
        assert ids(ask(world, session_id="s", k=3)) == ["i15", "i8", "i9"]
        assert ids(ask(world, session_id="new", k=1)) == ["i14"]


def test_a_pin_of_an_item_that_nobody_knows_or_that_cannot_be_bought_is_not_shown(
    tmp_path: Path,
) -> None:
    world = a_world(tmp_path, {"pins": [{"item": "i190", "place": 1}]})
    assert ids(ask(world, session_id="s", k=2)) == ["i190", "i8"]
    catalogue(world).untold = ("i190",)
    assert ids(ask(world, session_id="s", k=2)) == ["i8", "i9"]
    catalogue(world).untold, catalogue(world).withdrawn = (), ("i190",)
    assert ids(ask(world, session_id="s", k=2)) == ["i8", "i9"]


def test_a_pin_for_another_category_does_not_bring_its_item_in(tmp_path: Path) -> None:
    """The fake ranker scores by price: i190 would be the first of all."""
    world = a_world(
        tmp_path, {"pins": [{"item": "i190", "place": 3, "when_category": "elsewhere"}]}
    )
    assert "i190" not in ids(ask(world, session_id="s", k=100))
    assert "i190" not in ids(ask(world, k=100))


def test_rules_change_with_the_release(world: FakeWorld) -> None:
    assert ids(ask(world, session_id="s", k=2)) == ["i8", "i9"]
    switch(world, "r2", {"shifts": [{"items": ["i9"], "by": 10}]})
    assert ids(ask(world, session_id="s", k=2)) == ["i9", "i8"]
    assert served(world).rules == [{"rule": "boost", "item": "i9", "before": 2, "after": 1}]


def test_what_was_left_out_is_logged(tmp_path: Path) -> None:
    world = a_world(tmp_path, {"exclude_seen": True})
    ask(world, session_id="s", k=3, exclude=["i9"])
    assert sorted(served(world).exclude) == ["i5", "i7", "i9"]
    impression: Impression = world.impressions.of(Topic.impressions)[0]
    assert "i9" not in impression.items
    ask(world, session_id="s", k=3, exclude_seen=False)
    assert served(world).exclude == ["i7"]


def test_rules_that_fail_leave_the_order_of_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world(tmp_path, {"pins": [{"item": "i190", "place": 1}]})

    def broken(*args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(pipeline, "arrange", broken)
    answer = ask(world, session_id="s", k=4)
    assert answer["degraded"] == world.parts.degraded() == ["rules"]
    assert ids(answer) == ["i8", "i9", "i10", "i11"]
    assert (served(world).rules, served(world).degraded) == ([], ["rules"])


def test_rules_hold_when_nothing_could_be_ranked_or_read(tmp_path: Path) -> None:
    world = a_world(tmp_path, {"pins": [{"item": "i190", "place": 1}]})
    world.ranker.trouble.down = world.store.item_trouble.down = True
    answer = ask(world, session_id="s", k=3)
    assert answer["degraded"] == ["features", "ranking"]
    assert ids(answer)[0] == "i190"
    assert set(ids(answer)[1:]) <= {*AFTER_I7, "i6"}
