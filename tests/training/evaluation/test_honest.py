"""The honest protocol on a shop's events: nothing of the test part reaches what is fitted, and no
rank knows more than its own prefix. `test_protocol` says the same of session tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.evaluation import tables
from tests.training.evaluation.tables import Session
from training.baselines import popularity
from training.evaluation.files import event_file
from training.evaluation.run import END, Evaluation, Fitted
from training.frozen import FrozenItems

DAYS, TEST_DAYS, COUNT = 35, 7, 700
FIRST = COUNT * (DAYS - TEST_DAYS) // DAYS
"""The first session of the test part."""
DAY_MS, MINUTE_MS = 86_400_000, 60_000
BEGIN = 1_700_000_000_000
SESSIONS = tables.sessions(COUNT, 1)
TRAIN, TEST = SESSIONS[:FIRST], SESSIONS[FIRST:]


STRADDLING = tables.sessions(200, 3)
"""Visits of which two events lie before the cut-off, and the rest after it."""


def write(path: Path, sessions: Sequence[Session], straddling: Sequence[Session] = ()) -> Path:
    """Evenly over the days, a minute from view to view; items have a category and a price."""
    starts = [BEGIN + number * DAYS * DAY_MS // COUNT for number in range(len(sessions))]
    ends = [start + (len(of) - 1) * MINUTE_MS for start, of in zip(starts, sessions, strict=True)]
    cutoff = max(ends) + 1 - TEST_DAYS * DAY_MS
    visits = [(f"s{number}", starts[number], of) for number, of in enumerate(sessions)]
    visits += [(f"x{n}", cutoff - 2 * MINUTE_MS, of) for n, of in enumerate(straddling)]
    lines = [
        f"{name},{item},{start + place * MINUTE_MS},view,"
        f"category.{sum(map(ord, item)) % 5},brand,{10 + sum(map(ord, item)) % 7}\n"
        for name, start, session in visits
        for place, item in enumerate(session)
    ]
    path.write_text("session_id,item_id,time,type,category,brand,price\n" + "".join(lines))
    return path


class Run:
    """An evaluation of these events: what it fitted, and the rank of every label of the test part."""

    def __init__(
        self,
        folder: Path,
        train: list[Session],
        test: list[Session],
        straddling: list[Session] = STRADDLING,
    ) -> None:
        path = write(folder / "e.csv", [*train, *test], straddling)
        shop = event_file(path, test_days=TEST_DAYS, keep_new=True)
        self.run = Evaluation(shop, tables.SMALL, folder / "w", lambda *step: None)
        self.fitted: Fitted = self.run.fit()
        self.prefixes = shop.prefixes(shop.cutoff, END)
        self.ranked = self.run.rank(self.fitted, self.prefixes)
        self.queries = [shop.query(prefix) for prefix in self.prefixes]

    def learned(self) -> tuple[str, str, object]:
        booster = self.fitted.ranker.booster
        return booster.model_to_string(), self.fitted.index.version, self.fitted.parameters

    def hit_rate(self) -> float:
        return float(np.mean(self.ranked.ranks["ranker"] <= 10))

    def ranks(self) -> dict[tuple[str, int], tuple[float, float, list[int]]]:
        """Of the ranker and of the merge, and the list, by visit and events before the label."""
        own, merged = self.ranked.ranks["ranker"], self.ranked.ranks["merged"]
        return {
            (query.visit, len(query.visited)): (own[row], merged[row], lists.tolist())
            for row, (query, lists) in enumerate(zip(self.queries, self.ranked.lists, strict=True))
        }


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("honest"), TRAIN, TEST)


def test_the_parts_are_those_that_were_planted(honest: Run) -> None:
    assert len(honest.prefixes) == sum(len(session) - 1 for session in TEST)
    assert {query.session_id.split("~")[0] for query in honest.queries} == {
        f"s{FIRST + number}" for number in range(len(TEST))
    }
    cutoff, windows = honest.run.shop.cutoff, honest.fitted.windows
    assert windows[0][1] == cutoff
    assert all(start < end <= cutoff for start, end in windows)


def test_what_a_visit_does_after_the_cutoff_teaches_nothing_though_it_began_before(
    honest: Run, tmp_path: Path
) -> None:
    """Neither as a label nor otherwise; and it is no part of the test either."""
    other = tables.shuffled(STRADDLING, seed=6)
    changed = [[*own[:2], *muddled[2:]] for own, muddled in zip(STRADDLING, other, strict=True)]
    found = Run(tmp_path, TRAIN, TEST, changed)
    assert sum(own[2:] != new[2:] for own, new in zip(STRADDLING, changed, strict=True)) > 50
    assert found.learned() == honest.learned()
    assert found.ranks() == honest.ranks()


def test_features_of_items_stand_as_of_the_cutoff_of_their_window(
    honest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[int] = []
    of = FrozenItems.of

    def noted(events: Any, catalogue: Any, moment: int) -> FrozenItems:
        moments.append(moment)
        return of(events, catalogue, moment)

    monkeypatch.setattr(FrozenItems, "of", noted)
    honest.run.learn()
    assert moments == [start for start, _ in honest.fitted.windows]
    moments.clear()
    honest.run.rank(honest.fitted, honest.prefixes[:5])
    assert moments == [honest.run.shop.cutoff]


def test_a_prefix_knows_nothing_of_its_label(honest: Run, tmp_path: Path) -> None:
    """Another label, seen before where it was new, leaves what is told of the prefix as it is."""
    ended = [[*session[:-1], session[0]] for session in TEST]
    path = write(tmp_path / "e.csv", [*TRAIN, *ended], STRADDLING)
    other, own = event_file(path, test_days=TEST_DAYS, keep_new=True), honest.run.shop
    last = [
        prefix for prefix, query in zip(honest.prefixes, honest.queries, strict=True)
        if other.query(prefix).label != query.label
    ]  # fmt: skip
    assert len(last) > 50
    assert all(other.query(prefix).visited == own.query(prefix).visited for prefix in last)
    assert other.session_columns(last) == own.session_columns(last)


def test_the_planted_successor_is_learned_and_popularity_does_not_know_it(honest: Run) -> None:
    shop = honest.run.shop
    clicks = shop.before(shop.cutoff).select(["visit", "time", "item_id"])
    popular = popularity(clicks, honest.queries, shop.cutoff)
    assert honest.hit_rate() > 0.75
    assert honest.hit_rate() > 2 * float(np.mean(popular <= 10))
    first = float(np.mean(honest.ranked.ranks["ranker"] <= 1))
    assert first > 0.55  # four of five labels are the successor: it stands first, not anywhere


def test_shuffled_labels_of_the_test_part_change_the_figures_and_nothing_fitted(
    honest: Run, tmp_path: Path
) -> None:
    muddled = Run(tmp_path, TRAIN, tables.shuffled(TEST))
    assert muddled.learned() == honest.learned()
    assert muddled.hit_rate() < 0.35  # 10 of 60 by chance, and what visits have in common


def test_items_planted_in_the_test_part_change_nothing_that_is_fitted(
    honest: Run, tmp_path: Path
) -> None:
    planted = [[*session[:-1], f"planted-{row % 3}"] for row, session in enumerate(TEST)]
    found = Run(tmp_path, TRAIN, planted)
    assert found.learned() == honest.learned()
    assert not any(item.startswith("planted") for item in found.ranked.items)
    new = np.array([query.label.startswith("planted") for query in found.queries])
    assert new.sum() == len([session for session in TEST if len(session) > 1])
    assert np.isinf(found.ranked.ranks["ranker"][new]).all()
    assert np.isinf(found.ranked.ranks["merged"][new]).all()


def test_what_is_fitted_does_depend_on_the_train_part(honest: Run, tmp_path: Path) -> None:
    """Were it not so, the tests above would say nothing."""
    found = Run(tmp_path, tables.shuffled(TRAIN), TEST)
    for own, other in zip(found.learned()[:2], honest.learned()[:2], strict=True):
        assert own != other
    assert found.hit_rate() < 0.5 < honest.hit_rate()


def test_a_rank_knows_neither_what_comes_after_its_label_nor_other_visits(
    honest: Run, tmp_path: Path
) -> None:
    """Every second session of the test part is another one; of the others the last item is."""
    other = tables.shuffled(TEST, seed=5)
    changed = [
        [*session[:-1], muddled[-1]] if row % 2 == 0 else muddled
        for row, (session, muddled) in enumerate(zip(TEST, other, strict=True))
    ]
    found, before = Run(tmp_path, TRAIN, changed).ranks(), honest.ranks()
    same = [
        (f"s{FIRST + row}~1", length)
        for row, session in enumerate(TEST)
        if row % 2 == 0
        for length in range(1, len(session) - 1)
    ]
    assert len(same) > 50
    assert {key: found[key] for key in same} == {key: before[key] for key in same}
