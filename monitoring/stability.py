"""The population stability index of a column, and how large chance alone makes it.

    PSI = sum over bins of (served share - reference share) * ln(served share / reference share)

The bins are the deciles of the reference, or its values where there are few. Evidently's own PSI
cuts the range into equal widths; one item with 10,000 views then puts all others into a single
bin, where no shift can show. Between two samples of the same population of sizes n and m,
PSI / (1/n + 1/m) follows a chi-square distribution with bins - 1 degrees of freedom (Yurdakul,
"Statistical Properties of Population Stability Index", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
FEW_VALUES = 20
"""Up to so many different values in the reference, each is a bin of its own."""
QUANTILES = 10
EMPTY_SHARE = 1e-4
"""What an empty bin counts as, so that its logarithm exists."""
NORMAL_999 = 3.09
"""Quantile .999 of the normal distribution: chance passes `chance_psi` once in 1,000 columns."""


@dataclass(frozen=True)
class Stability:
    """`psi` of two samples over so many `bins` that at least one of them reaches."""

    psi: float
    bins: int

    def threshold(self, asked: float, reference_size: int, served_size: int) -> float:
        """`asked`, or what chance alone may give between independent samples of these sizes."""
        return max(asked, chance_psi(self.bins, reference_size, served_size))


def stability(reference: Values, served: Values) -> Stability:
    """Compares two samples without missing values, neither of them empty."""
    values = np.unique(reference)
    if len(values) <= FEW_VALUES:
        before, now = _place(values, reference), _place(values, served)
    else:
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
        before, now = (
            np.searchsorted(edges, sample, side="right") for sample in (reference, served)
        )
    return _compare(before, now)


def missing_stability(reference: npt.NDArray[np.bool_], served: npt.NDArray[np.bool_]) -> Stability:
    """The same for whether a value is there: two bins."""
    return _compare(reference.astype(np.intp), served.astype(np.intp))


def chance_psi(bins: int, reference_size: int, served_size: int) -> float:
    """The PSI that two samples of one population exceed once in 1,000 times; 0 for a single bin.

    The chi-square quantile by Wilson and Hilferty's approximation (1931), within 2 % here.
    """
    if bins < 2:
        return 0.0
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + NORMAL_999 * spread**0.5) ** 3
    return float(quantile * (1 / reference_size + 1 / served_size))


def _place(values: Values, sample: Values) -> npt.NDArray[np.intp]:
    """The bin of each value; values that the reference lacks share the last bin."""
    place = np.minimum(np.searchsorted(values, sample), len(values) - 1)
    return np.where(values[place] == sample, place, len(values))


def _compare(reference: npt.NDArray[np.intp], served: npt.NDArray[np.intp]) -> Stability:
    count = int(max(reference.max(), served.max())) + 1
    before = np.bincount(reference, minlength=count) / len(reference)
    now = np.bincount(served, minlength=count) / len(served)
    reached = (before > 0) | (now > 0)
    before, now = (np.where(share > 0, share, EMPTY_SHARE)[reached] for share in (before, now))
    return Stability(float(((now - before) * np.log(now / before)).sum()), int(reached.sum()))
