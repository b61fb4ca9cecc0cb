"""A shop of two sessions, of which the proof is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.monitoring.proven_shop import MINUTE, NOON, ProvenShop


@pytest.fixture
def shop(tmp_path: Path) -> ProvenShop:
    shop = ProvenShop(tmp_path)
    shop.visit("s", ["i07", "i08", "i03"], NOON - 10 * MINUTE)
    shop.visit("t", ["i20"], NOON - 5 * MINUTE)
    return shop
