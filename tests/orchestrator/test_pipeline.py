"""What an answer does without, when a part is down, slow or wrong; and that it says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.deadline import Deadline
from contracts.events import Impression, ServedRows, Topic
from contracts.features import RANKED
from orchestrator.ports import Floats, RankerRefused
from orchestrator.request import parse_recommend
from tests.orchestrator.fakes import FakeWorld, settings_in

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z, a Thursday
MINUTE = 60_000
STAGES = ("session", "candidates", "features", "ranking")
ROOMY = {"deadline_ms": 1000, **{f"{stage}_budget_ms": 300 for stage in STAGES}}
"""Budgets that a busy machine keeps; the fakes' trouble takes 5 s."""


@pytest.fixture
def world(tmp_path: Path) -> FakeWorld:
    made = FakeWorld(settings_in(tmp_path, **ROOMY))
    made.activate("r1")
    asyncio.run(made.parts.follower.check())
    return made


def ask(world: FakeWorld, now: int = NOW, probe: bool = False, **body: Any) -> dict[str, Any]:
    request = parse_recommend(json.dumps(body).encode(), world.settings, now)
    deadline = Deadline(world.settings.deadline_ms / 1000)
    return asyncio.run(world.parts.pipeline.recommend(request, deadline, probe=probe))


def click(item: str, at: int = NOW, session: str = "s") -> dict[str, Any]:
    return {"type": "click", "item_id": item, "time": at, "session_id": session}


def send(world: FakeWorld, *events: dict[str, Any]) -> None:
    status, answer = asyncio.run(world.parts.events.accept(json.dumps(events).encode(), NOW))
    assert (status, answer["accepted"]) == (202, len(events))


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


# After i7 the session source proposes i8 (rank 1) to i17; the fake ranker scores by its score,
# then by price. Cold, it ranks by price alone: of the 100 most popular, i99 first.
AFTER_I7 = [f"i{number}" for number in range(8, 18)]
COLD = [f"i{number}" for number in range(99, 89, -1)]


def test_the_way_of_a_request(world: FakeWorld) -> None:
    send(world, click("i7"))
    answer = ask(world, session_id="s", k=10)
    assert ids(answer) == AFTER_I7
    assert answer["degraded"] == []
    assert answer["release"] == "r1"
    assert answer["items"][0]["sources"] == ["session", "popular"]
    assert answer["items"][0]["score"] == pytest.approx(10_008)
    assert set(answer["timings_ms"]) == {
        "session", "candidates", "features", "matrix", "ranking", "rules", "total"
    }  # fmt: skip


def test_matrix_holds_what_the_contracts_say(world: FakeWorld) -> None:
    """The row of i8 after: search, click i5, click i7 (30 s apart, mobile), asked a minute later."""
    first, second, third = NOW - 120_000, NOW - 90_000, NOW - MINUTE
    send(
        world,
        {"session_id": "s", "type": "search", "query": "q", "time": first},
        {**click("i5", second), "device": "mobile"},
        {**click("i7", third), "position": 4},
    )
    ask(world, session_id="s", k=1, context={"source": "email"})
    version, rows = world.ranker.calls[-1]
    row = dict(zip(RANKED, rows[world.store.asked[-1].index("i8")].tolist(), strict=True))
    expected = {
        "session_events": 3, "session_items": 2, "session_searches": 1, "session_duration": 60,
        "session_mean_gap": 30, "session_last_position": 4, "device": 2, "traffic_source": 4,
        "hour": 0, "weekday": 3, "price": 8, "session_rank": 1, "popular_rank": 9,
        "times_in_session": 0, "same_category": 1,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert np.isnan(row["same_brand"])
    assert np.isnan(row["views_7d"])
    assert row["price_to_last"] == pytest.approx(np.log(8 / 7), abs=1e-6)
    assert version == 1


def test_events_without_times_happened_as_they_are_told(world: FakeWorld) -> None:
    for told in (["i50", "i7"], ["i7", "i50"], ["i3", "i9", "i3"]):
        events = [{"type": "click", "item_id": item} for item in told]
        ask(world, events=events)
        assert world.finder.asked[-1] == told


def test_a_returning_visitor_begins_a_new_visit(world: FakeWorld) -> None:
    """Within one session id: after a long pause what was seen before it says nothing."""
    send(world, click("i50", NOW - 50 * MINUTE), click("i7", NOW - MINUTE))
    answer = ask(world, session_id="s", k=10)
    assert world.finder.asked[-1] == ["i7"]
    assert ids(answer) == AFTER_I7
    send(world, click("i60", NOW - 90 * MINUTE, session="gone"))
    ask(world, session_id="gone", k=10)
    assert world.finder.asked[-1] == []  # only what is popular


def test_the_answer_tells_how_many_events_of_the_visit_it_knew(world: FakeWorld) -> None:
    send(world, click("i5", NOW - 50 * MINUTE), click("i7", NOW - MINUTE))  # two visits
    asked = [ask(world, session_id="s", events=events) for events in ([], [click("i3", NOW)])]
    assert [answer["session"] for answer in asked] == [{"events": 1}, {"events": 2}]
    world.store.session_trouble.down = True
    assert ask(world, session_id="s")["session"] == {"events": 0}


def test_item_features_are_asked_once_for_candidates_and_visited(world: FakeWorld) -> None:
    visited = [click(item, NOW + place) for place, item in enumerate(["i7", "i3", "i7", "new"])]
    ask(world, events=visited, session_id="s")
    [asked] = world.store.asked
    assert len(asked) == len(set(asked)) == 101
    assert asked[-1] == "new"


def test_visit_ends_after_half_an_hour(world: FakeWorld) -> None:
    send(world, click("i7", NOW - 31 * MINUTE))
    assert ids(ask(world, session_id="s", k=10)) == COLD
    assert ids(ask(world, now=NOW - 2 * MINUTE, session_id="s", k=10)) == AFTER_I7


def test_a_clock_that_is_ahead_loses_no_click(world: FakeWorld) -> None:
    send(world, click("i7", NOW + 2 * MINUTE))
    assert ids(ask(world, session_id="s", k=10)) == AFTER_I7
    assert ids(ask(world, events=[click("i7", NOW + MINUTE, "t")], k=10)) == AFTER_I7


def test_events_of_request_and_store_are_one_session(world: FakeWorld) -> None:
    """The same event in both counts once; a new one follows."""
    send(world, click("i7", NOW - MINUTE))
    ask(world, session_id="s", events=[click("i7", NOW - MINUTE), click("i20")])
    assert world.finder.asked[-1] == ["i7", "i20"]


def test_context_overrides(world: FakeWorld) -> None:
    send(world, {**click("i7"), "device": "mobile", "source": "email"})
    ask(world, session_id="s", context={"device": "desktop"})
    rows = world.ranker.calls[-1][1]
    assert set(rows[:, RANKED.index("device")]) == {1.0}
    assert set(rows[:, RANKED.index("traffic_source")]) == {4.0}


# --- trouble -------------------------------------------------------------------------------------


def sessions_down(world: FakeWorld) -> None:
    world.store.session_trouble.down = True


def sessions_slow(world: FakeWorld) -> None:
    world.store.session_trouble.slow = 5


def candidates_down(world: FakeWorld) -> None:
    world.finder.trouble.down = True


def candidates_slow(world: FakeWorld) -> None:
    world.finder.trouble.slow = 5


def features_down(world: FakeWorld) -> None:
    world.store.item_trouble.down = True


def features_slow(world: FakeWorld) -> None:
    world.store.item_trouble.slow = 5


def ranking_down(world: FakeWorld) -> None:
    world.ranker.trouble.down = True


def ranking_slow(world: FakeWorld) -> None:
    world.ranker.trouble.slow = 5


def ranking_nan(world: FakeWorld) -> None:
    world.ranker.answer = float("nan")


TROUBLES = [
    (sessions_down, "session"),
    (sessions_slow, "session"),
    (candidates_down, "candidates"),
    (candidates_slow, "candidates"),
    (features_down, "features"),
    (features_slow, "features"),
    (ranking_down, "ranking"),
    (ranking_slow, "ranking"),
    (ranking_nan, "ranking"),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLES)
def test_each_trouble_is_named_and_answered(
    world: FakeWorld, trouble: Callable[[FakeWorld], None], reason: str
) -> None:
    send(world, click("i7"))
    trouble(world)
    begun = time.monotonic()
    answer = ask(world, session_id="s", k=10)
    assert time.monotonic() - begun < world.settings.deadline_ms / 1000 + 1
    assert answer["degraded"] == [reason]
    assert len(answer["items"]) == 10
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert world.parts.degraded() == [reason]


def test_everything_down(world: FakeWorld) -> None:
    for trouble in (sessions_slow, candidates_slow, features_slow, ranking_slow):
        trouble(world)
    begun = time.monotonic()
    answer = ask(world, session_id="s", k=3, exclude=["i0"])
    assert time.monotonic() - begun < world.settings.deadline_ms / 1000 + 1
    assert answer["degraded"] == ["session", "candidates", "features", "ranking"]
    assert ids(answer) == ["i1", "i2", "i3"]


def test_session_store_down_leaves_the_events_of_the_request(world: FakeWorld) -> None:
    sessions_down(world)
    answer = ask(world, session_id="s", events=[click("i7")], k=10)
    assert ids(answer) == AFTER_I7
    assert answer["degraded"] == ["session"]


def test_ranking_down_gives_the_order_of_candidates(world: FakeWorld) -> None:
    ranking_down(world)
    answer = ask(world, events=[click("i7")], k=12)
    assert ids(answer) == [*AFTER_I7, "i0", "i1"]
    assert [item["score"] for item in answer["items"]][:4] == [1, 0.5, 0.333333, 0.25]


def test_candidates_down_gives_popular_items(world: FakeWorld) -> None:
    candidates_down(world)
    answer = ask(world, events=[click("i7")], k=3, exclude=["i99"])
    assert ids(answer) == ["i98", "i97", "i96"]
    assert answer["items"][0]["sources"] == ["popular"]


def test_without_release_the_list_is_empty(tmp_path: Path) -> None:
    world = FakeWorld(settings_in(tmp_path))
    asyncio.run(world.parts.follower.check())
    answer = ask(world, session_id="s")
    assert (answer["items"], answer["release"], answer["degraded"]) == ([], None, ["release"])
    assert world.parts.degraded() == ["release"]


def test_few_candidates_are_all_there_is(world: FakeWorld) -> None:
    everything = [f"i{number}" for number in range(198)]
    assert set(ids(ask(world, k=100, exclude=everything))) == {"i198", "i199"}
    assert ids(ask(world, k=100, exclude=[*everything, "i198", "i199"])) == []


def test_a_switch_under_a_request_ranks_with_the_new_release(world: FakeWorld) -> None:
    """Ranker version 1 goes while a request asks it: version 2 answers, and is named."""
    rank = world.ranker.rank

    async def switch_first(rows: Floats, version: int, timeout: float) -> Floats:
        if version == 1:
            world.activate("r2", ranker=2, features=RANKED)
            world.ranker.versions.discard(1)
            await world.parts.follower.check()
            raise RankerRefused("version 1 is gone")
        return await rank(rows, version, timeout)

    world.ranker.rank = switch_first  # type: ignore[method-assign]
    answer = ask(world, k=1)
    assert (answer["release"], answer["degraded"], ids(answer)) == ("r2", [], ["i99"])


# --- what is logged ------------------------------------------------------------------------------


def test_impression_and_served_rows(world: FakeWorld) -> None:
    answer = ask(world, session_id="s", events=[click("i7")], k=3)
    [impression] = world.impressions.of(Topic.impressions)
    said = Impression.model_validate_json(impression.to_json())
    assert (said.request_id, said.session_id, said.release) == (answer["request_id"], "s", "r1")
    assert said.items == ids(answer)
    assert said.scores == pytest.approx([item["score"] for item in answer["items"]])
    assert said.sources == [item["sources"] for item in answer["items"]]
    [rows] = world.impressions.of(Topic.served)
    served = ServedRows.model_validate_json(rows.to_json())
    assert (served.features, served.items, served.time) == (list(RANKED), ids(answer), NOW)
    assert (served.asked_at, served.index, served.candidates) == (NOW, "index-1", 100)
    assert (served.session_version, served.visited) == (-1, ["i7"])
    assert [event["item_id"] for event in served.events] == ["i7"]
    assert served.visited_versions["item_catalogue"] == [5007]
    assert served.versions == {"item_catalogue": [5008, 5009, 5010], "item_activity": []}
    price = RANKED.index("price")
    assert [row[price] for row in served.rows] == [8, 9, 10]
    assert served.rows[0][RANKED.index("views_7d")] is None


def test_probes_and_empty_answers_leave_no_impression(world: FakeWorld) -> None:
    ask(world, session_id="s", probe=True)
    ask(world, exclude=[f"i{number}" for number in range(200)])
    assert world.impressions.messages == []


def test_rows_that_no_ranker_saw_are_not_logged_as_served(world: FakeWorld) -> None:
    ranking_down(world)
    ask(world, session_id="s")
    assert len(world.impressions.of(Topic.impressions)) == 1
    assert world.impressions.of(Topic.served) == []


def test_sample_takes_whole_sessions(tmp_path: Path) -> None:
    world = FakeWorld(settings_in(tmp_path, served_sample=0.3))
    world.activate("r1")
    asyncio.run(world.parts.follower.check())
    for _ in range(2):
        for number in range(100):
            ask(world, session_id=f"s{number}", k=1)
    keys = [key for topic, key, _ in world.impressions.messages if topic is Topic.served]
    counts = {key: keys.count(key) for key in keys}
    assert set(counts.values()) == {2}
    assert 15 < len(counts) < 45
