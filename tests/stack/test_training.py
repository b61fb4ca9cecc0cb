"""Training on real servers: MLflow, Triton and Feast's historical retrieval, on a planted shop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import ReleaseError, ServiceError, UsageError
from contracts.events import EventType
from contracts.features import RANKED, of_view, text_id
from contracts.release import (
    MODEL_NAME,
    MODEL_TEXT,
    SCORE_TOLERANCE,
    ReleaseStore,
    ranker_folder,
)
from contracts.session import SessionEvent, SessionState, fold, items_of, session_features
from contracts.settings import Settings
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, OFFLINE_COLUMNS, Offline
from training import export, parity, tracking
from training.release import check_release
from training.train import Options, TrainingResult, train

ITEMS, DAYS, VISITS_A_DAY, STEPS = 40, 32, 12, 4
START = 1_700_000_000_000 // 86_400_000 * 86_400_000
DAY = 86_400_000
ARROW = {"timestamp": pa.timestamp("us", "UTC"), "float": pa.float32(), "double": pa.float64()}
Row = dict[str, Any]


def arrow_type(name: str) -> pa.DataType:
    if name.startswith("list<"):
        return pa.list_(arrow_type(name[5:-1]))
    return ARROW.get(name) or pa.type_for_alias(name)


def write(settings: Settings, table: Offline, rows: list[Row], part: str = "") -> None:
    kinds = OFFLINE_COLUMNS[table]
    schema = pa.schema([(name, arrow_type(kind)) for name, kind in kinds.items()])
    folder = Path(settings.offline) / table / part
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "part.parquet")


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def visits() -> Iterator[tuple[str, list[SessionEvent]]]:
    """Three times of four, item i is followed by i + 1."""
    rng = np.random.default_rng(0)
    for number in range(DAYS * VISITS_A_DAY):
        item = int(rng.integers(ITEMS))
        start = START + number * DAY // VISITS_A_DAY
        events = []
        for step in range(STEPS):
            key = number * STEPS + step
            kind = int(EventType.item_view)
            events.append(SessionEvent(start + step * 5000, key, kind, f"i{item}", -1, 1, 1))
            item = (item + 1) % ITEMS if rng.random() < 0.75 else int(rng.integers(ITEMS))
        yield f"s{number}", events


def event_row(session: str, event: SessionEvent) -> Row:
    return {
        "visit": session, "session_id": session, "event_id": str(event.key), "key": event.key,
        "type": event.type, "time": event.time, "item_id": event.item, "position": -1,
        "device": event.device, "source": event.source, "price": 1.0, "request_id": None,
        "offset": event.offset, "received": event.time,
    }  # fmt: skip


def session_rows(session: str, events: list[SessionEvent]) -> Iterator[Row]:
    state = SessionState()
    for event in events:
        state = fold(state, [event])
        stamps = {EVENT_TIMESTAMP: at(event.time), CREATED_TIMESTAMP: at(event.time)}
        yield {"session_id": session, **stamps, **state.columns(), **session_features(state.events)}


def query_rows(session: str, events: list[SessionEvent]) -> Iterator[Row]:
    for step in range(1, len(events)):
        now, label = events[step - 1], events[step]
        if label.item != now.item:
            yield {
                "visit": session, "session_id": session, "moment": now.time,
                "visited": items_of(events[:step]), "label": label.item, "label_time": label.time,
            }  # fmt: skip


def item_rows() -> tuple[list[Row], list[Row]]:
    """Catalogue: known from the start. Activity: once a day, the day's number in `views_7d`."""
    catalogue, activity = [], []
    for item in range(ITEMS):
        name = f"i{item}"
        stamps = {EVENT_TIMESTAMP: at(START), CREATED_TIMESTAMP: at(START)}
        catalogue.append(
            {"item_id": name, **stamps, "category": "even" if item % 2 else "odd", "brand": "b",
             "category_id": text_id("even" if item % 2 else "odd"), "brand_id": text_id("b"),
             "available": 1, "price": 10.0 + item}
        )  # fmt: skip
        for day in range(1, DAYS + 1):
            end = START + day * DAY
            stamps = {EVENT_TIMESTAMP: at(end), CREATED_TIMESTAMP: at(end + 3_600_000)}
            values = {feature.name: 0.0 for feature in of_view("item_activity")}
            activity.append({"item_id": name, **stamps, **values, "views_7d": float(day)})
    return catalogue, activity


@pytest.fixture(scope="module")
def shop(infrastructure: Settings) -> Settings:
    """The offline tables of a planted shop, without Spark, and Feast's registry over them."""
    from feast_engine.store import apply

    folder = infrastructure.home.parent / "training"
    changed = {
        "home": folder, "offline": str(folder / "offline"), "lake": str(folder / "lake"),
        "indexes": folder / "indexes", "releases": folder / "releases",
        "feast_registry": str(folder / "registry.db"),
    }  # fmt: skip
    settings = infrastructure.model_copy(update=changed)
    walked = list(visits())
    write(settings, Offline.events_clean, [event_row(s, e) for s, es in walked for e in es])
    write(settings, Offline.session, [row for s, es in walked for row in session_rows(s, es)])
    write(settings, Offline.queries, [row for s, es in walked for row in query_rows(s, es)])
    catalogue, activity = item_rows()
    write(settings, Offline.item_catalogue, catalogue)
    write(settings, Offline.item_activity, activity)
    apply(settings)
    return settings


@pytest.fixture(scope="module")
def trained(shop: Settings) -> TrainingResult:
    return train(shop, Options(queries=600), report=print)


def test_the_planted_order_is_learned(trained: TrainingResult) -> None:
    quality = trained.metrics["quality"]
    assert quality["ranker"]["mrr_10"] > 0.6
    assert quality["ranker"]["mrr_10"] > 3 * quality["popularity"]["mrr_10"]
    assert set(quality) == {"ranker", "merged_candidates", "covisitation", "popularity"}


def test_training_rows_are_as_of_their_moment(trained: TrainingResult) -> None:
    """The row of a day is known an hour after its end: later ones must not be in the rows."""
    rows = pq.read_table(trained.rows)
    assert set(RANKED) <= set(rows.column_names)
    moments, seen = rows["moment"].to_numpy(), rows["views_7d"].to_numpy()
    np.testing.assert_array_equal(seen, (moments - START - 3_600_000) // DAY)
    assert not np.isnan(rows["session_events"].to_numpy()).any()


def test_the_model_is_registered_and_champion(shop: Settings, trained: TrainingResult) -> None:
    import mlflow

    client = mlflow.MlflowClient(shop.mlflow)
    champion = client.get_model_version_by_alias(MODEL_NAME, tracking.CHAMPION)
    assert int(champion.version) == trained.release.ranker_version
    run = client.get_run(trained.release.mlflow_run)
    expected = trained.metrics["quality"]["covisitation"]["hit_rate_20"]
    assert run.data.metrics["quality.covisitation.hit_rate_20"] == expected
    assert run.data.metrics["parity"] == trained.release.parity
    assert run.data.params["num_leaves"] == "15"
    files = [path.name for path in Path(shop.home).rglob("*.pkl")]
    assert not files


def test_the_release_is_whole(shop: Settings, trained: TrainingResult) -> None:
    store = ReleaseStore(shop.releases)
    assert store.versions() == [trained.release.version]
    assert store.active() is None  # switching is another step
    check_release(shop, store.get(trained.release.version))
    reference = pq.read_table(store.path(trained.release.version) / "reference.parquet")
    assert reference.column_names == [*RANKED, "item_id", "score"]
    assert reference.num_rows > 1000


def test_a_release_that_is_not_whole_is_refused(shop: Settings, trained: TrainingResult) -> None:
    release = trained.release
    with pytest.raises(ReleaseError, match="candidate index"):
        check_release(shop, release.model_copy(update={"index_version": "none"}))
    with pytest.raises(ReleaseError, match="version 77 is not whole"):
        check_release(shop, release.model_copy(update={"ranker_version": 77}))
    with pytest.raises(ReleaseError, match="trained on features"):
        check_release(shop, release.model_copy(update={"fingerprint": "0" * 16}))


def test_the_gate_is_shut_when_triton_serves_another_model(
    shop: Settings, trained: TrainingResult
) -> None:
    """The file that the server reads is another model's; the checkpoint beside it is right."""
    version, other = 901, 902
    folder = ranker_folder(shop.models, trained.release.ranker_version)
    booster = lightgbm.Booster(model_file=str(folder / MODEL_TEXT))
    rows = np.random.default_rng(0).random((200, len(RANKED)), dtype=np.float32)
    try:
        tampered = export.export(booster, shop.models, version)
        assert parity.check(shop, booster, tampered, version, rows) <= SCORE_TOLERANCE
        tampered = export.export(booster, shop.models, other)
        _shrink(tampered / MODEL_TEXT)
        with pytest.raises(ReleaseError, match="the served model and LightGBM differ"):
            parity.check(shop, booster, tampered, other, rows)
    finally:
        for number in (version, other):
            export.withdraw(shop.models, number)
        parity.served_scores(shop, trained.release.ranker_version, rows)


def _shrink(model: Path) -> None:
    """The same trees without the last one."""
    booster = lightgbm.Booster(model_file=str(model))
    booster.save_model(str(model), num_iteration=booster.num_trees() - 1)


def test_a_server_that_is_not_up_is_named(shop: Settings) -> None:
    nowhere = "127.0.0.1:1"
    with pytest.raises(ServiceError, match=r"Triton does not answer at .*nextclick up"):
        parity.require_triton(shop.model_copy(update={"triton": nowhere}))
    with pytest.raises(ServiceError, match=r"MLflow at http://127\.0\.0\.1:1: .*nextclick up"):
        tracking.require_mlflow(shop.model_copy(update={"mlflow": f"http://{nowhere}"}))


def test_too_small_a_shop_says_what_it_needs(shop: Settings, tmp_path: Path) -> None:
    small = shop.model_copy(update={"offline": str(tmp_path)})
    with pytest.raises(UsageError, match="no table events_clean"):
        train(small)
    for table in (Offline.events_clean, Offline.queries):
        shutil.copytree(Path(shop.offline) / table, tmp_path / table)
    rows = pq.read_table(tmp_path / Offline.queries)
    pq.write_table(rows.slice(0, 0), tmp_path / Offline.queries / "part.parquet")
    with pytest.raises(UsageError, match=r"the label window has 0 next clicks, .* at least 50"):
        train(small)
