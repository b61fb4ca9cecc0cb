"""The drift report to read: drawn by Evidently, with the PSI of `monitoring.stability`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monitoring.stability import stability

if TYPE_CHECKING:
    import pandas as pd

METHOD = "psi_deciles"


def write_html(
    path: Path,
    reference: pd.DataFrame,
    served: pd.DataFrame,
    values: Mapping[str, float],
    missing: Mapping[str, float],
) -> dict[str, float]:
    """Draw the columns `values` and, as columns of 0 and 1, whether there is one in `missing`.

    Each maps columns to the PSI from which they count as drifted, in the order to draw them.
    Columns without any value belong in `missing` only: Evidently cannot draw them. Returns the
    PSI that Evidently shows for each column drawn.
    """
    with warnings.catch_warnings():
        # Evidently 0.7.23 touches numpy.core when it is imported
        warnings.simplefilter("ignore", DeprecationWarning)
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        _register_psi()
    thresholds = {f"{name} is missing": limit for name, limit in missing.items()} | dict(values)
    definition = DataDefinition(numerical_columns=list(thresholds))
    before, now = (
        Dataset.from_pandas(_drawn(frame, values, missing), data_definition=definition)
        for frame in (reference, served)
    )
    metrics: list[Any] = [
        ValueDrift(column=name, method=METHOD, threshold=limit)
        for name, limit in thresholds.items()
    ]
    snapshot = Report(metrics, include_tests=True).run(now, before)
    snapshot.save_html(str(path))
    results = snapshot.dict()["metrics"]
    return {metric["config"]["column"]: float(metric["value"]) for metric in results}


def _drawn(frame: pd.DataFrame, values: Iterable[str], missing: Iterable[str]) -> pd.DataFrame:
    absent = {f"{name} is missing": frame[name].isna().astype("float64") for name in missing}
    return frame[list(values)].assign(**absent)


def _register_psi() -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    def test(reference: Any, served: Any, _: object, threshold: float) -> tuple[float, bool]:
        psi = stability(reference.to_numpy(), served.to_numpy()).psi
        return psi, psi >= threshold

    name = "PSI over the deciles of training"
    register_stattest(StatTest(METHOD, name, [ColumnType.Numerical]), test)
