"""Which answers the proof looks at, how it judges them, and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from contracts.features import RANKED
from contracts.parity import last_parity
from monitoring.parity import differing, write
from monitoring.served import Selection
from tests.monitoring.proven_shop import MINUTE, NOON, ProvenShop

K = 10


def test_a_message_that_came_twice_counts_once(shop: ProvenShop) -> None:
    shop.ask(NOON, session_id="s")
    shop.impressions.messages *= 2
    assert shop.prove().rows == K


def test_only_the_selection_is_looked_at(shop: ProvenShop) -> None:
    for minute in range(8):
        shop.ask(NOON + minute * MINUTE, session_id="s")
    period = Selection(since=NOON + 2 * MINUTE, until=NOON + 6 * MINUTE)
    assert shop.prove(period).answers == 4
    assert shop.prove(replace(period, sample=3)).answers == 3
    assert shop.prove(Selection(sample=100)).answers == 8


def test_answers_that_the_tables_cannot_know_are_counted(shop: ProvenShop) -> None:
    for minute in range(8):
        shop.ask(NOON + minute * MINUTE, session_id="s")
    report = shop.prove(Selection(told=NOON + 6 * MINUTE))
    assert report.answers == 6
    assert report.answers_not_compared == {"asked after the offline tables were made": 2}


def test_the_threshold_is_a_share_of_the_cells(shop: ProvenShop) -> None:
    for row in shop.online.rows["item_activity"].values():
        row["views_7d"] += 1.0
    shop.ask(NOON, session_id="s")
    share = 3 / len(RANKED)  # views_7d, and two pair features that look at it
    assert shop.prove(threshold=share * 0.99).exit_code == 3
    assert shop.prove(threshold=share * 1.01).exit_code == 0


def test_the_last_report_is_kept(shop: ProvenShop) -> None:
    shop.ask(NOON, session_id="s")
    assert last_parity(shop.settings) is None
    report = shop.prove()
    write(shop.settings, report)
    kept = last_parity(shop.settings)
    assert kept is not None
    assert (kept.verdict, kept.cells) == ("equal", report.cells)


def test_cells_are_compared_bit_by_bit() -> None:
    one = np.float32(1)
    left = np.array([[1, np.nan, 0.0, np.inf, np.nan]], dtype=np.float32)
    right = np.array([[np.nextafter(one, 2), np.nan, -0.0, np.inf, 0]], dtype=np.float32)
    assert differing(left, right).tolist() == [[True, False, True, False, True]]
