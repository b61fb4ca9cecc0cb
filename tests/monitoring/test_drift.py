"""Drift between planted samples: what was shifted is named, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from contracts.errors import ReleaseError
from contracts.features import fingerprint
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from monitoring.drift import DriftReport, drift_report
from monitoring.samples import MAX_ROWS

FEATURES = ("session_events", "device", "hour", "price", "views_30d", "popular_rank")
START = datetime(2026, 3, 2, tzinfo=UTC)
ITEMS = 20  # rows of an answer


def rows(answers: int, seed: int) -> pd.DataFrame:
    """Rows of one population: session columns are the same over an answer's rows."""
    random = np.random.default_rng(seed)
    count = answers * ITEMS
    price = random.lognormal(3, 1, count)
    price[random.random(count) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "request_id": np.repeat([f"r{seed}-{i}" for i in range(answers)], ITEMS),
            "session_id": "s",
            "item_id": np.tile([f"i{i}" for i in range(ITEMS)], answers),
            "release": "v1",
            "time": np.repeat(_times(answers), ITEMS),
            "session_events": np.repeat(random.poisson(8, answers), ITEMS).astype(float),
            "device": np.ones(count),
            "hour": np.repeat(random.integers(0, 24, answers), ITEMS).astype(float),
            "price": price,
            "views_30d": random.pareto(1.0, count) * 10,
            "popular_rank": np.full(count, np.nan),
            "score": random.normal(size=count),
        }
    )


def _times(answers: int) -> npt.NDArray[np.int64]:
    start = int(START.timestamp() * 1000)
    return start + np.arange(answers) * (
        timedelta(hours=20) // timedelta(milliseconds=1) // answers
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings.from_environment({"NEXTCLICK_HOME": str(tmp_path)})
    store = ReleaseStore(settings.releases)
    release = Release(
        version="v1", created=START, ranker_version=1, mlflow_run="run", index_version="index",
        features=FEATURES, fingerprint=fingerprint(FEATURES), feature_service="ranker_v1",
        rules_version="none", metrics={}, parity=0.0,
    )  # fmt: skip
    store.add(release)
    store.activate("v1")
    reference = rows(400, seed=1)[["item_id", *FEATURES, "score"]]
    reference.to_parquet(store.path("v1") / "reference.parquet")
    return settings


def serve(settings: Settings, frame: pd.DataFrame, day: str = "2026-03-02") -> None:
    folder = Path(settings.lake) / "served" / f"day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / f"{len(list(folder.iterdir()))}.parquet")


def report_on(settings: Settings, frame: pd.DataFrame) -> DriftReport:
    serve(settings, frame)
    return drift_report(settings, html=False)


def test_the_same_population_has_not_drifted(settings: Settings) -> None:
    report = report_on(settings, rows(400, seed=2))
    assert report.verdict == "no drift"
    assert report.drifted_columns == ()
    assert report.exit_code == 0
    assert set(report.columns) == {*FEATURES, "score"}
    assert (report.served_rows, report.served_answers) == (400 * ITEMS, 400)


def _lose_half(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.arange(len(values)) % 2 == 0, np.nan, values)


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("session_events", lambda values: values + 5),
        ("device", lambda values: values + 1),
        ("price", lambda values: values * 3),
        # heavy tails: bins of equal width see nothing of this
        ("views_30d", lambda values: values * 4),
        ("score", lambda values: values - 1),
        ("price", _lose_half),
        ("popular_rank", lambda values: np.zeros(len(values))),
        ("views_30d", lambda values: np.full(len(values), np.inf)),
    ],
)
def test_a_planted_shift_is_named_and_nothing_else(
    settings: Settings,
    column: str,
    change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> None:
    frame = rows(400, seed=2)
    frame[column] = change(frame[column].to_numpy())
    report = report_on(settings, frame)
    assert report.drifted_columns == (column,)
    assert (report.verdict, report.drifted, report.exit_code) == ("drift", True, 3)


def test_a_change_of_missing_values_is_a_number_of_its_own(settings: Settings) -> None:
    frame = rows(400, seed=2)
    frame["price"] = _lose_half(frame["price"].to_numpy())
    price = report_on(settings, frame).columns["price"]
    assert price.missing_reference == pytest.approx(0.1, abs=0.02)
    assert price.missing_served == pytest.approx(0.55, abs=0.02)
    assert price.psi is not None
    assert price.psi < 0.05
    assert "missing 1" in price.reason


def test_a_column_that_no_served_file_has_is_named(settings: Settings) -> None:
    report = report_on(settings, rows(400, seed=2).drop(columns=["price"]))
    assert report.drifted_columns == ("price",)
    assert "no served file has the column" in report.columns["price"].reason


def test_files_are_read_by_name(settings: Settings) -> None:
    """A file with other columns, in another order and of single precision, beside a whole one."""
    early, late = rows(200, seed=2), rows(200, seed=3)
    late = late[late.columns[::-1]].assign(a_new_feature=1.0)
    serve(settings, early)
    serve(settings, late.astype(dict.fromkeys(FEATURES, "float32")), day="2026-03-03")
    assert drift_report(settings, html=False).verdict == "no drift"


def test_repeats_and_other_releases_do_not_count(settings: Settings) -> None:
    frame = rows(100, seed=2)
    serve(settings, frame)
    serve(settings, frame)
    shifted = rows(300, seed=3).assign(release="v0", score=99.0)
    report = report_on(settings, shifted)
    assert report.served_rows == 100 * ITEMS
    assert not report.drifted


def test_since_leaves_out_what_was_served_before(settings: Settings) -> None:
    serve(settings, rows(400, seed=2))
    report = drift_report(settings, html=False, since=START + timedelta(hours=10))
    assert report.served_answers == 200
    assert report.first == "2026-03-02T10:00:00+00:00"


def test_chance_between_few_answers_is_no_drift(settings: Settings) -> None:
    """30 answers of 20 items: many rows, but the session columns have only 30 values."""
    serve(settings, rows(30, seed=5))
    report = drift_report(settings, html=False, minimum_rows=100)
    assert report.columns["session_events"].psi is not None
    assert report.columns["session_events"].psi > settings.drift_psi
    assert report.verdict == "no drift"


def test_the_hour_is_judged_over_a_whole_week_only(settings: Settings) -> None:
    frame = rows(400, seed=2).assign(hour=3.0)
    assert "not judged" in report_on(settings, frame).columns["hour"].reason
    later = frame.assign(request_id="w" + frame.request_id)
    later["time"] += 8 * 24 * 3600 * 1000
    assert report_on(settings, later).drifted_columns == ("hour",)


@pytest.mark.parametrize("served", [0, 3])
def test_too_few_rows_say_how_many_came_and_how_many_are_needed(
    settings: Settings, served: int
) -> None:
    if served:
        serve(settings, rows(served, seed=2))
    report = drift_report(settings, html=False)
    assert report.verdict == "not enough rows"
    assert report.exit_code == 1
    assert f"{served * ITEMS} rows were served, 1000 are needed" in " ".join(report.lines())
    assert not (settings.home / "drift").exists()


def test_the_file_holds_what_is_returned(settings: Settings) -> None:
    frame = rows(400, seed=2).assign(score=5.0)
    report = report_on(settings, frame)
    assert report.html is None
    assert report.json is not None
    assert json.loads(Path(report.json).read_text()) == report.as_dict()
    assert "score: PSI" in "\n".join(report.lines())


def test_steps_are_told(settings: Settings) -> None:
    serve(settings, rows(100, seed=2))
    told: list[str] = []
    drift_report(settings, html=False, report=told.append)
    assert told == [
        "read the reference", "read the served rows", "compare the columns", "write the report",
    ]  # fmt: skip


def test_many_rows_are_sampled_the_same_way_each_time(settings: Settings) -> None:
    serve(settings, rows(MAX_ROWS // ITEMS + 500, seed=2))
    first, second = (drift_report(settings, html=False) for _ in range(2))
    assert first.served_rows == MAX_ROWS + 500 * ITEMS
    assert first.columns == second.columns
    assert first.verdict == "no drift"


def test_a_release_without_a_whole_reference_is_refused(settings: Settings) -> None:
    path = settings.releases / "v1" / "reference.parquet"
    pd.read_parquet(path).drop(columns=["price"]).to_parquet(path)
    with pytest.raises(ReleaseError, match=r"lacks price, .*train a new release"):
        drift_report(settings)
    path.unlink()
    with pytest.raises(ReleaseError, match="is missing: train"):
        drift_report(settings)
    with pytest.raises(ReleaseError, match="no release 'v2'"):
        drift_report(settings, release="v2")
    (settings.releases / "ACTIVE").unlink()
    with pytest.raises(ReleaseError, match="no release is active"):
        drift_report(settings)


def test_exit_codes_follow_the_verdict(settings: Settings) -> None:
    report = report_on(settings, rows(100, seed=2))
    assert replace(report, verdict="drift").exit_code == 3
