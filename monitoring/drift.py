"""Has what is served moved away from what the ranker was trained on? `nextclick drift report`.

The served feature rows and scores of a release are compared, column by column, with the reference
that its training left: the values by the population stability index (PSI), and the share of
missing values by the same index over two bins. Evidently draws the report; its verdict on the
whole data set is not used, because it passes while a single column has drifted beyond doubt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from contracts.errors import ReleaseError
from contracts.features import BY_NAME
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from monitoring.html import write_html
from monitoring.samples import Sample, read_reference, read_served
from monitoring.stability import Values, missing_stability, stability

MINIMUM_ROWS = 1000
WEEK_MS = timedelta(days=7) // timedelta(milliseconds=1)


@dataclass(frozen=True)
class ColumnDrift:
    """One column. `psi` is None where either side has no value at all.

    The thresholds are the setting `drift_psi`, or what chance may give between so few answers.
    `reason` says why the column drifted, or why it is not judged; "" otherwise.
    """

    psi: float | None
    threshold: float | None
    missing_reference: float
    missing_served: float
    missing_psi: float
    missing_threshold: float
    drifted: bool
    reason: str

    @property
    def more_or_less_missing(self) -> bool:
        return self.missing_psi >= self.missing_threshold


@dataclass(frozen=True)
class DriftReport:
    """What `report.json` holds. Shares from 0 to 1, times in ISO 8601, UTC."""

    verdict: str  # "drift", "no drift" or "not enough rows"
    drifted: bool
    drifted_columns: tuple[str, ...]
    release: str
    since: str | None
    first: str | None
    last: str | None
    served_rows: int
    served_answers: int
    minimum_rows: int
    reference_rows: int
    drift_psi: float
    columns: dict[str, ColumnDrift]
    html: str | None = None
    json: str | None = None

    @property
    def exit_code(self) -> int:
        """0 no drift, 1 not enough rows to say, 3 drift."""
        return {"no drift": 0, "not enough rows": 1, "drift": 3}[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "drifted_columns": list(self.drifted_columns)}

    def lines(self) -> list[str]:
        """The report for a person."""
        if self.verdict == "not enough rows":
            return [
                f"release {self.release}: not enough rows: {self.served_rows} rows were served"
                f"{f' since {self.since}' if self.since else ''}, {self.minimum_rows} are needed:"
                " send more requests to /v1/recommend, or ask for fewer rows"
            ]
        head = (
            f"release {self.release}: {self.verdict} in {self.served_rows} rows of"
            f" {self.served_answers} answers from {self.first} to {self.last},"
            f" beside {self.reference_rows} rows of training"
        )
        found = [f"  {name}: {self.columns[name].reason}" for name in self.drifted_columns]
        files = [f"to read: {self.html}"] if self.html else []
        return [head, *found, *files, f"to act on: {self.json}"]


def drift_report(
    settings: Settings,
    *,
    since: datetime | None = None,
    release: str | None = None,
    minimum_rows: int = MINIMUM_ROWS,
    html: bool = True,
    report: Callable[[str], None] = lambda _: None,
) -> DriftReport:
    """Compare what a release (by default the active one) served with what it was trained on.

    Writes `report.html` (unless `html` is off: Evidently takes seconds to import) and
    `report.json` to `<home>/drift/<time>-<release>/`, unless there are fewer than `minimum_rows`
    rows. `report` is told each step. ReleaseError where there is no release or it has no whole
    reference.
    """
    store = ReleaseStore(settings.releases)
    chosen = _release(store, release)
    report("read the reference")
    reference = read_reference(store.path(chosen.version), chosen)
    report("read the served rows")
    served = read_served(settings, chosen, since)
    enough = served.rows >= max(1, minimum_rows)
    report("compare the columns")
    columns = _columns(reference, served, settings.drift_psi) if enough else {}
    result = DriftReport(
        verdict=_verdict(columns),
        drifted=any(column.drifted for column in columns.values()),
        drifted_columns=tuple(name for name, column in columns.items() if column.drifted),
        release=chosen.version,
        since=None if since is None else since.isoformat(),
        first=_iso(served.first),
        last=_iso(served.last),
        served_rows=served.rows,
        served_answers=served.answers,
        minimum_rows=minimum_rows,
        reference_rows=reference.rows,
        drift_psi=settings.drift_psi,
        columns=columns,
    )
    if not enough:
        return result
    report("write the report")
    return _write(settings, result, reference, served, html)


def _write(
    settings: Settings, result: DriftReport, reference: Sample, served: Sample, html: bool
) -> DriftReport:
    """The report with its files written and named in it."""
    now = datetime.now(UTC)
    folder = settings.home / "drift" / f"{now:%Y%m%dT%H%M%S.%fZ}-{result.release}"
    folder.mkdir(parents=True)
    if html:
        found = result.columns.items()
        values = {name: c.threshold for name, c in found if c.threshold is not None}
        missing = {name: c.missing_threshold for name, c in found if c.more_or_less_missing}
        write_html(folder / "report.html", reference.frame, served.frame, values, missing)
        result = replace(result, html=str(folder / "report.html"))
    result = replace(result, json=str(folder / "report.json"))
    (folder / "report.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    return result


def _verdict(columns: dict[str, ColumnDrift]) -> str:
    if not columns:
        return "not enough rows"
    return "drift" if any(column.drifted for column in columns.values()) else "no drift"


def _release(store: ReleaseStore, version: str | None) -> Release:
    chosen = store.active() if version is None else store.get(version)
    if chosen is None:
        raise ReleaseError("no release is active: train one (./nextclick train)")
    return chosen


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


# --- the comparison ----------------------------------------------------------------------------


def _columns(reference: Sample, served: Sample, asked: float) -> dict[str, ColumnDrift]:
    """Drifted columns first, the largest PSI first."""
    whole_week = (served.last or 0) - (served.first or 0) >= WEEK_MS
    columns = {}
    for name in reference.frame.columns:
        column = _column(name, reference, served, asked)
        feature = BY_NAME.get(name)
        if feature is not None and feature.view == "moment" and not whole_week:
            column = _not_judged(column)
        columns[name] = column
    return dict(sorted(columns.items(), key=lambda pair: (not pair[1].drifted, -_size(pair[1]))))


def _size(column: ColumnDrift) -> float:
    return max(column.psi or 0.0, column.missing_psi)


def _column(name: str, reference: Sample, served: Sample, asked: float) -> ColumnDrift:
    before: Values = reference.frame[name].to_numpy()
    now: Values = served.frame[name].to_numpy()
    no_before, no_now = np.isnan(before), np.isnan(now)
    missing = missing_stability(no_before, no_now)
    missing_threshold = missing.threshold(asked, reference.answers, served.answers)
    psi = threshold = None
    if not no_before.all() and not no_now.all():
        before, now = before[~no_before], now[~no_now]
        values = stability(before, now)
        sizes = min(reference.answers, len(before)), min(served.answers, len(now))
        psi, threshold = values.psi, values.threshold(asked, *sizes)
    shares = float(no_before.mean()), float(no_now.mean())
    reasons = []
    if psi is not None and threshold is not None and psi >= threshold:
        reasons.append(f"PSI {psi:.3g}, {threshold:.3g} allowed")
    if missing.psi >= missing_threshold:
        absent = " (no served file has the column)" if name in served.absent else ""
        reasons.append(f"missing {shares[0]:.1%} in training, {shares[1]:.1%} served{absent}")
    return ColumnDrift(
        psi, threshold, *shares, missing.psi, missing_threshold, bool(reasons), "; ".join(reasons)
    )


def _not_judged(column: ColumnDrift) -> ColumnDrift:
    """The hour of requests differs from training's until there is a whole week of them."""
    reason = "not judged: the served rows span less than a week"
    return replace(column, drifted=False, reason=reason)
