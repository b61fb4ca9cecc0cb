"""The proof finds nothing where nothing is wrong, and what was broken by name where something is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import features as feature_contract
from contracts.events import Topic
from contracts.features import BY_NAME, RANKED, of_view
from contracts.session import SessionState
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feast_engine.publications import Publication
from monitoring.parity import ParityReport
from monitoring.recompute import OF_CANDIDATES
from monitoring.stored import Published, published
from orchestrator import pipeline
from tests.monitoring.proven_shop import (
    DAY,
    ITEMS,
    MIDNIGHT,
    MINUTE,
    NOON,
    ProvenShop,
    activity_row,
    at,
    catalogue_row,
    click,
    session_rows,
)

K = 10
ACTIVITY = {feature.name for feature in of_view("item_activity") if feature.ranked}
OF_VIEWS = {"views_7d", "last_views_7d", "views_to_last"}
"""What the number of views of a week is in."""
PRICES = {"price", "price_to_last", "price_to_mean"}


def found(report: ParityReport) -> dict[str, set[str]]:
    """Features that differ, with their reasons."""
    return {name: set(each.reasons) for name, each in report.features.items() if each.differing}


def all_for(names: set[str], reason: str) -> dict[str, set[str]]:
    return {name: {reason} for name in names}


def ask_all(shop: ProvenShop) -> int:
    """Answers of every kind: how many."""
    item = {"type": "item_view", "item_id": "i09", "time": NOON}
    shop.ask(NOON, session_id="s")
    shop.ask(NOON, session_id="t", exclude=["i21", "i22"])
    shop.ask(NOON, session_id="s", events=[item, item, {**item, "item_id": "i30"}])
    shop.ask(NOON, events=[{**item, "item_id": "unheard of"}])
    shop.ask(NOON, session_id="nobody", context={"device": "app"})
    shop.ask(NOON + 2 * DAY, session_id="s")
    shop.ask(NOON, events=[{**item, "time": NOON + 2 * MINUTE}])
    for part in ("session", "features", "candidates"):
        shop.online.down = (part,)
        shop.ask(NOON, session_id="s", exclude=["i00"])
    shop.online.down = ()
    return 10


def test_what_is_served_is_what_is_recomputed(shop: ProvenShop) -> None:
    answers = ask_all(shop)
    report = shop.prove()
    assert found(report) == {}
    assert (report.verdict, report.exit_code) == ("equal", 0)
    assert (report.answers, report.rows) == (answers, answers * K)
    assert report.cells == answers * K * len(RANKED)
    assert (report.scores, report.scores_differing) == (answers * K, 0)
    assert report.degraded == {"nothing": answers - 3, "session": 1, "features": 1, "candidates": 1}
    assert report.answers_not_compared == report.cells_not_compared == {}
    assert set(report.features) == set(RANKED)


def test_the_recomputed_rows_have_values_to_compare(shop: ProvenShop) -> None:
    """Else nan would equal nan everywhere, and the proof would prove nothing."""
    shop.ask(NOON, session_id="s")
    (served,) = shop.served()
    rows = np.array(served.rows, dtype=np.float32)
    unknown = {name for name, column in zip(RANKED, rows.T, strict=True) if np.isnan(column).all()}
    assert len(unknown) < 13  # ranks of sources that know none of the ten, among others
    assert not unknown & (ACTIVITY | PRICES | {"session_duration", "popular_rank", "vector_score"})


# --- broken on purpose ---------------------------------------------------------------------------


def test_an_off_by_one_in_a_window_is_named(shop: ProvenShop) -> None:
    for row in shop.online.rows["item_activity"].values():
        row["views_7d"] += 1.0
    shop.ask(NOON, session_id="s")
    report = shop.prove()
    assert found(report) == all_for(OF_VIEWS, "code")
    assert report.features["views_7d"].differing == K
    assert report.exit_code == 3
    example = report.examples[0]
    assert example.served == pytest.approx((example.recomputed or 0) + 1)


def test_another_default_is_named(shop: ProvenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(columns: dict[str, Any], rows: int, names: tuple[str, ...]) -> object:
        with monkeypatch.context() as patched:
            other = replace(BY_NAME["session_mean_gap"], default=0.0)
            patched.setitem(feature_contract.BY_NAME, "session_mean_gap", other)
            return feature_contract.matrix(columns, rows, names)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "matrix", wrong)
        shop.ask(NOON, session_id="t")  # one event: no gap
    assert found(shop.prove()) == {"session_mean_gap": {"code"}}


def test_columns_in_another_order_are_named(
    shop: ProvenShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = {"views_1d": "carts_30d", "carts_30d": "views_1d"}

    def wrong(columns: dict[str, Any], rows: int, names: tuple[str, ...]) -> object:
        return feature_contract.matrix(
            {name: columns[swapped.get(name, name)] for name in columns}, rows, names
        )

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "matrix", wrong)
        shop.ask(NOON, session_id="s")
    assert found(shop.prove()) == {"views_1d": {"code"}, "carts_30d": {"code"}}


def test_a_key_that_was_not_overwritten_is_stale(shop: ProvenShop) -> None:
    shop.online.rows["item_activity"]["i04"] = activity_row("i04", MIDNIGHT - DAY)
    answer = shop.ask(NOON, session_id="s", k=30)
    assert "i04" in [item["item_id"] for item in answer["items"]]
    report = shop.prove()
    assert found(report) == all_for(ACTIVITY | {"views_to_last"}, "stale")
    assert {each.item_id for each in report.examples} == {"i04"}


def test_old_values_under_a_new_time_are_found(shop: ProvenShop) -> None:
    row = shop.online.rows["item_catalogue"]["i04"]
    shop.online.rows["item_catalogue"]["i04"] = {**row, "price": 1.0}
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for(PRICES, "code")


def test_a_stale_price_of_what_was_visited_shows_in_the_pairs(shop: ProvenShop) -> None:
    """i03 is the last item of the visit, so it is not in the list itself."""
    shop.offline["item_catalogue"].append(catalogue_row("i03", MIDNIGHT, 99.0))
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for(PRICES - {"price"}, "stale")


def test_an_item_row_that_is_gone_online_is_missing(shop: ProvenShop) -> None:
    del shop.online.rows["item_activity"]["i04"]
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for(ACTIVITY | {"views_to_last"}, "missing")


@pytest.mark.parametrize(("days", "reasons"), [(29, {"missing"}), (31, set())])
def test_an_item_that_was_not_for_sale_for_long_may_be_gone_online(
    shop: ProvenShop, days: int, reasons: set[str]
) -> None:
    row = {**catalogue_row("i04", NOON - days * DAY - 60 * MINUTE, 5.0), "available": 0}
    others = [each for each in shop.offline["item_catalogue"] if each["item_id"] != "i04"]
    shop.offline["item_catalogue"] = [*others, row]
    del shop.online.rows["item_catalogue"]["i04"]
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()).get("price", set()) == reasons


def test_a_row_that_nobody_made_is_missing_offline(shop: ProvenShop) -> None:
    row = {**activity_row("i04", MIDNIGHT + MINUTE), "views_7d": 1.0}
    shop.online.rows["item_activity"]["i04"] = row
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for({"views_7d", "views_to_last"}, "missing")


@pytest.mark.parametrize("holds_from", [NOON - MINUTE, NOON - 61 * MINUTE])
def test_a_row_that_was_online_before_it_was_known_is_late(
    shop: ProvenShop, holds_from: int
) -> None:
    """The last publication is of an hour ago; the row is known 10 minutes after it holds."""
    early = {**activity_row("i04", holds_from), "views_7d": 1.0}
    shop.offline["item_activity"].append(early)
    shop.online.rows["item_activity"]["i04"] = early
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for({"views_7d", "views_to_last"}, "late")


def test_ages_that_nobody_looked_at_are_found(shop: ProvenShop) -> None:
    shop.online.ages = False
    shop.ask(NOON + 4 * DAY, session_id="s", k=30)
    assert found(shop.prove()) == all_for(ACTIVITY, "age")


def test_an_event_that_the_lake_lost_is_missing(shop: ProvenShop) -> None:
    """Online there are three clicks; offline nobody knows of the last one."""
    shop.offline["session"] = [
        row for row in shop.offline["session"] if len(row["event_time"]) != 3
    ]
    shop.ask(NOON, session_id="s")
    reasons = found(shop.prove())
    assert reasons["session_items"] == reasons["session_events"] == {"missing"}
    assert reasons["popular_rank"] <= {"missing"}
    assert not ACTIVITY & set(reasons)


def test_an_event_that_the_online_store_lost_is_late(shop: ProvenShop) -> None:
    events = shop.online.states["s"].events
    shop.online.states["s"] = SessionState(events[:2])
    shop.ask(NOON, session_id="s")
    report = shop.prove()
    assert found(report)["session_items"] == {"late"}
    assert (report.answers_behind, report.most_behind_ms) == (1, 8 * MINUTE - 5)


def test_a_whole_session_that_is_gone_online_is_missing(shop: ProvenShop) -> None:
    shop.online.states.clear()
    shop.ask(NOON, session_id="s")
    assert found(shop.prove())["session_items"] == {"missing"}


def test_a_state_that_was_folded_wrongly_is_code(shop: ProvenShop) -> None:
    """The version agrees, an event in its midst is gone."""
    first, _, third = shop.online.states["s"].events
    shop.online.states["s"] = SessionState((first, third))
    shop.ask(NOON, session_id="s")
    assert found(shop.prove())["session_events"] == {"code"}


def test_candidates_of_another_count_are_found(shop: ProvenShop) -> None:
    shop.ask(NOON, session_id="s")
    (served,) = shop.served()
    told = served.model_copy(update={"candidates": 12})
    shop.impressions.messages = [(Topic.served, "s", told)]
    report = shop.prove(examples=100)
    reasons = found(report)
    still = shop.index.candidates(["i07", "i08", "i03"], 12, ["i03"]).items
    lost = {each.item_id for each in report.examples if each.feature == "best_rank"}
    assert lost == set(served.items) - set(still) != set()
    best = {each.recomputed for each in report.examples if each.feature == "best_rank"}
    assert best == {None}
    assert set(reasons) <= OF_CANDIDATES


def test_a_score_that_the_model_does_not_give_is_found(shop: ProvenShop) -> None:
    shop.ranker.added = 1e-3
    shop.ask(NOON, session_id="s")
    report = shop.prove()
    assert (report.differing, report.scores_differing, report.exit_code) == (0, K, 3)
    assert report.largest_score_difference == pytest.approx(1e-3, rel=0.05)


# --- what may be either way ----------------------------------------------------------------------


def test_an_event_on_its_way_may_have_been_read_or_not(shop: ProvenShop) -> None:
    state = shop.online.states["s"]
    new = (click("i11", NOON - 500, 777), NOON - 400)
    old = [(event, event.time + 5) for event in state.events]
    shop.offline["session"] = session_rows("s", [*old, new])
    shop.ask(NOON, session_id="s")
    shop.online.states["s"] = SessionState((*state.events, new[0]))
    shop.ask(NOON, session_id="s")
    assert found(shop.prove()) == {}
    assert found(shop.prove(lag_ms=300))["session_items"] == {"late"}


@pytest.mark.parametrize("finished", [None, NOON + MINUTE])
def test_while_a_publication_is_under_way_either_row_is_right(
    shop: ProvenShop, finished: int | None
) -> None:
    shop.offline["item_catalogue"] += [
        catalogue_row(item, NOON - 30 * MINUTE, 500.0) for item in ITEMS
    ]
    shop.publications.append(
        Publication("item_catalogue", NOON - MINUTE, NOON - 10, finished, 40 if finished else 0)
    )
    for item in ITEMS[::2]:
        shop.online.rows["item_catalogue"][item] = catalogue_row(item, NOON - 30 * MINUTE, 500.0)
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == {}


def test_what_was_not_known_by_the_publication_is_not_expected(shop: ProvenShop) -> None:
    for view in ("item_catalogue", "item_activity"):
        for row in shop.offline[view][:]:
            later = {
                EVENT_TIMESTAMP: at(NOON - 2 * 60 * MINUTE),
                CREATED_TIMESTAMP: at(NOON - MINUTE),
            }
            values = {"price": 1.0} if view == "item_catalogue" else {"views_7d": 1.0}
            shop.offline[view].append({**row, **later, **values})
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == {}


def test_once_a_publication_is_through_the_old_row_is_stale(shop: ProvenShop) -> None:
    shop.offline["item_catalogue"] += [
        catalogue_row(item, NOON - 30 * MINUTE, 500.0) for item in ITEMS
    ]
    shop.publications.append(
        Publication("item_catalogue", NOON - MINUTE, NOON - MINUTE, NOON - MINUTE + 1, 40)
    )
    shop.ask(NOON, session_id="s", k=30)
    assert found(shop.prove()) == all_for(PRICES, "stale")


def test_what_records_say_of_a_moment() -> None:
    def record(until: int, started: int, finished: int | None) -> Publication:
        return Publication("v", until, started, finished, 0)

    through, older = record(100, 100, 200), record(50, 150, 250)
    killed, begun = record(90, 95, None), record(300, 310, None)
    assert published([], 1000, 0) == Published(None)
    assert published([through, older], 250, 0) == Published(100)
    assert published([older, killed, through, begun], 10_000, 0) == Published(100, (300,))
    assert published([through], 200, 50) == Published(None, (100,))
    assert published([through, record(120, 90_000, 90_001)], 300, 0) == Published(100)


# --- what cannot be compared is counted ------------------------------------------------------------


def test_without_a_publication_on_record_nothing_is_claimed(shop: ProvenShop) -> None:
    shop.publications = [each for each in shop.publications if each.view != "item_activity"]
    shop.ask(NOON, session_id="s")
    report = shop.prove()
    assert found(report) == {}
    lost = len(ACTIVITY | OF_VIEWS)
    assert report.cells == K * (len(RANKED) - lost)
    why = "no materialisation of item_activity is on record"
    assert report.cells_not_compared == {why: K * lost}


def test_a_deleted_index_takes_away_the_candidate_columns(shop: ProvenShop) -> None:
    shop.ask(NOON, session_id="s")
    shutil.rmtree(shop.settings.indexes)
    report = shop.prove()
    assert found(report) == {}
    assert report.cells_not_compared == {
        f"the candidate index {shop.index.version} is gone": K * len(OF_CANDIDATES)
    }


@pytest.mark.parametrize(
    ("remove", "expected"),
    [
        (lambda shop: shop.settings.releases, (0, {"their release was deleted": 1}, {})),
        (
            lambda shop: shop.settings.models,
            (K * len(RANKED), {}, {"the model of their release was deleted": K}),
        ),
    ],
)
def test_deleted_releases_and_models_are_counted(
    shop: ProvenShop,
    remove: Callable[[ProvenShop], Path],
    expected: tuple[int, dict[str, int], dict[str, int]],
) -> None:
    shop.ask(NOON, session_id="s")
    shutil.rmtree(remove(shop))
    report = shop.prove()
    assert (report.cells, report.answers_not_compared, report.scores_not_compared) == expected
    assert report.exit_code == (0 if report.cells else 1)


def test_answers_without_rows_are_counted(shop: ProvenShop) -> None:
    shop.ask(NOON, session_id="s")
    shop.ask(NOON, session_id="t")
    messages = shop.impressions.messages
    shop.impressions.messages = [each for each in messages if each != messages[1]]
    report = shop.prove()
    assert report.answers == 1
    assert report.answers_not_compared == {"no rows logged (not sampled, or dropped)": 1}


def test_an_empty_lake_proves_nothing(shop: ProvenShop) -> None:
    report = shop.prove()
    assert (report.verdict, report.exit_code, report.cells) == ("nothing to compare", 1, 0)
