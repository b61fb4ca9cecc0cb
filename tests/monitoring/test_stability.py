"""The population stability index against values worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from monitoring.stability import EMPTY_SHARE, chance_psi, missing_stability, stability


def test_two_values_by_hand() -> None:
    """Half and half against 3 to 1: (.75-.5) ln(.75/.5) + (.25-.5) ln(.25/.5)."""
    found = stability(np.array([0.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert found.psi == pytest.approx(0.25 * log(1.5) - 0.25 * log(0.5))
    assert found.bins == 2


def test_a_constant_column_does_not_drift_and_another_constant_does() -> None:
    same, other = np.full(10, 3.0), np.full(10, 4.0)
    assert stability(same, same).psi == 0.0
    assert stability(same, other).psi == pytest.approx(2 * (1 - EMPTY_SHARE) * log(1 / EMPTY_SHARE))


def test_values_between_and_beyond_those_of_the_reference_share_a_bin() -> None:
    found = stability(np.array([1.0, 2.0]), np.array([1.5, 7.0]))
    assert found.bins == 3


def test_the_deciles_of_the_reference_hold_a_tenth_each() -> None:
    reference = np.arange(1000.0)
    assert stability(reference, reference) == stability(reference, reference[::-1])
    assert stability(reference, reference).psi == 0.0
    # all in the lowest tenth, nine bins empty
    one = (1 - 0.1) * log(1 / 0.1)
    none = 9 * (EMPTY_SHARE - 0.1) * log(EMPTY_SHARE / 0.1)
    assert stability(reference, np.zeros(50)).psi == pytest.approx(one + none)


def test_missing_values_are_two_bins() -> None:
    reference, served = np.array([True, False]), np.array([True, True, True, False])
    assert missing_stability(reference, served).psi == pytest.approx(
        0.25 * log(1.5) - 0.25 * log(0.5)
    )
    assert missing_stability(reference[:1], served[:1]).psi == 0.0


@pytest.mark.parametrize("bins", [2, 10, 21])
def test_chance_stays_below_its_bound_999_times_in_1000(bins: int) -> None:
    random = np.random.default_rng(0)
    sizes = 3000, 600
    bound = chance_psi(bins, *sizes)
    shares = [
        [random.multinomial(size, np.full(bins, 1 / bins)) / size for _ in range(4000)]
        for size in sizes
    ]
    before, now = np.array(shares[0]), np.array(shares[1])
    psi = ((now - before) * np.log(now / before)).sum(axis=1)
    assert (psi > bound).mean() == pytest.approx(0.001, abs=0.0015)
    assert (psi > bound / 2).mean() > 0.002
