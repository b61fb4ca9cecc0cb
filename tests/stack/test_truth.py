"""What the ranker learned from is what the visitor had done: training rows of the trained stack
beside the session features worked out from the events themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from contracts.features import of_view
from contracts.moment import moment_features
from contracts.session import SessionEvent, SessionState, fold, session_features, visit
from contracts.settings import Settings
from contracts.tables import Offline

SESSION_COLUMNS = [
    feature.name for view in ("session", "context") for feature in of_view(view) if feature.ranked
]


@pytest.fixture(scope="module")
def training_rows(trained: Settings) -> pd.DataFrame:
    newest = max(
        (trained.home / "training").glob("*/rows.parquet"), key=lambda p: p.stat().st_mtime
    )
    rows: pd.DataFrame = pq.read_table(newest).to_pandas()
    return rows


class Known(NamedTuple):
    """An event, and when it became known (milliseconds)."""

    known: int
    event: SessionEvent


@pytest.fixture(scope="module")
def events(trained: Settings) -> dict[str, list[Known]]:
    table = pq.read_table(Path(trained.offline) / Offline.events_clean)
    found: dict[str, list[Known]] = {}
    for row in table.to_pylist():
        found.setdefault(row["session_id"], []).append(Known(row["received"], _event(row)))
    return found


def _event(row: dict[str, Any]) -> SessionEvent:
    return SessionEvent(
        row["time"], row["key"], row["type"], row["item_id"] or "", row["position"], row["device"],
        row["source"], row["offset"],
    )  # fmt: skip


def test_session_features_of_training_rows_hold_the_last_click(
    training_rows: pd.DataFrame, events: dict[str, list[Known]]
) -> None:
    queries = training_rows.drop_duplicates("query").head(500)
    assert len(queries) > 100
    for row in queries.to_dict("records"):
        moment = int(row["moment"])
        told = [each.event for each in events[row["session_id"]] if each.known <= moment]
        known = fold(SessionState(), told)
        expected = session_features(visit(known, moment)) | moment_features(moment)
        for name in [*SESSION_COLUMNS, "hour", "weekday"]:
            np.testing.assert_equal(np.float32(row[name]), np.float32(expected[name]), err_msg=name)


def test_every_query_has_its_label_once(training_rows: pd.DataFrame) -> None:
    assert (training_rows.groupby("query")["label"].sum() == 1).all()


def test_item_features_are_known_for_most_rows_and_never_from_the_future(
    trained: Settings, training_rows: pd.DataFrame
) -> None:
    """An item's row of a day ends before the query's moment: found again by hand."""
    activity = pq.read_table(Path(trained.offline) / Offline.item_activity).to_pandas()
    activity = activity.sort_values("event_timestamp")
    asked = training_rows.sample(500, random_state=0)
    asked = asked.assign(event_timestamp=pd.to_datetime(asked["moment"], unit="ms", utc=True))
    stamps = activity["event_timestamp"].dt.tz_convert("UTC")
    activity = activity.assign(event_timestamp=stamps.astype(asked["event_timestamp"].dtype))
    before = activity[["item_id", "event_timestamp", "created_timestamp", "views_7d"]]
    found = pd.merge_asof(
        asked.sort_values("event_timestamp"), before, on="event_timestamp", by="item_id",
        suffixes=("", "_by_hand"), tolerance=pd.Timedelta(days=3),
    )  # fmt: skip
    known = found["created_timestamp"] <= found["event_timestamp"]
    assert known.mean() > 0.8
    np.testing.assert_array_equal(
        found.loc[known, "views_7d"].to_numpy(), found.loc[known, "views_7d_by_hand"].to_numpy()
    )
