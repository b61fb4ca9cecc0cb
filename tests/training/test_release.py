"""The folder of a release, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contracts.errors import ReleaseError
from contracts.features import FEATURE_SERVICE, RANKED, fingerprint
from contracts.release import Release, ReleaseStore
from contracts.rules import DEFAULT, Rules
from contracts.settings import Settings
from training import release
from training.evaluate import Evaluated
from training.tracking import Tracked, flat

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def served(rows: int) -> Evaluated:
    features = np.arange(rows, dtype=np.float32)[:, None] + np.zeros(len(RANKED), np.float32)
    items = np.array([f"i{row}" for row in range(rows)], dtype=object)
    return Evaluated(np.ones(1), features, np.arange(rows) / 10, items)


def made(settings: Settings, version: int, hours: int = 0, rows: int = 3) -> Release:
    return release.make_release(
        settings,
        tracked=Tracked("run", version),
        index_version="index",
        metrics={"queries": 7},
        gap=1e-7,
        served=served(rows),
        now=NOON + timedelta(hours=hours),
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"home": tmp_path, "models": tmp_path / "models"})


def test_a_release_says_what_it_is_made_of(settings: Settings) -> None:
    release_ = made(settings, 3)
    assert release_.version == "r20261121-120000-v3"
    assert release_ == ReleaseStore(settings.releases).get(release_.version)
    assert release_.features == RANKED
    assert release_.fingerprint == fingerprint()
    assert release_.feature_service == FEATURE_SERVICE
    assert release_.ranker_version == 3
    folder = settings.releases / release_.version
    assert json.loads((folder / "rules.json").read_text()) == {"version": "default"}
    reference = pq.read_table(folder / "reference.parquet")
    assert reference.column_names == [*RANKED, "item_id", "score"]
    assert reference["item_id"].to_pylist() == ["i0", "i1", "i2"]
    assert reference["score"].to_pylist() == [0.0, 0.1, 0.2]
    assert reference["price"].to_pylist() == [0.0, 1.0, 2.0]


def test_a_large_reference_is_drawn_with_whole_rows(settings: Settings) -> None:
    folder = settings.releases / made(settings, 1, rows=release.REFERENCE_ROWS + 500).version
    reference = pq.read_table(folder / "reference.parquet").to_pandas()
    assert len(reference) == release.REFERENCE_ROWS
    assert (reference["item_id"] == [f"i{row:.0f}" for row in reference["price"]]).all()
    assert reference["price"].is_monotonic_increasing
    assert reference["price"].iloc[-1] > release.REFERENCE_ROWS - 500


def test_triton_keeps_the_newest_rankers_and_the_live_one(settings: Settings) -> None:
    releases = [made(settings, version, hours=version) for version in (1, 2, 3, 9, 10)]
    store = ReleaseStore(settings.releases)
    assert store.versions() == [each.version for each in releases]  # by time, 9 before 10
    assert release.kept_rankers(store) == {3, 9, 10}
    store.activate(releases[0].version)
    assert release.kept_rankers(store) == {1, 3, 9, 10}


def test_features_that_changed_their_meaning_are_refused(settings: Settings) -> None:
    changed = made(settings, 1).model_copy(update={"fingerprint": "0" * 16})
    with pytest.raises(ReleaseError, match="train a new release"):
        release.check_release(settings, changed)


def test_an_index_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(ReleaseError, match="candidate index"):
        release.check_release(settings, made(settings, 1))


def test_figures_are_the_numbers_of_the_result() -> None:
    document = {"quality": {"ranker": {"mrr_10": 0.5}}, "queries": 3, "rule": "text"}
    assert flat(document) == {"quality.ranker.mrr_10": 0.5, "queries": 3.0}


def test_rules_stay_until_others_are_named(settings: Settings, tmp_path: Path) -> None:
    store = ReleaseStore(settings.releases)
    assert release.rules_of(settings) == DEFAULT
    first = made(settings, 1)
    store.activate(first.version)
    spring = Rules(version="spring", exclude_seen=True)
    second = release.with_rules(settings, first, spring, NOON + timedelta(hours=1))
    assert second.version != first.version
    assert store.rules(second) == spring
    assert (store.path(second.version) / "reference.parquet").is_file()
    assert release.rules_of(settings) == DEFAULT  # not live yet
    store.activate(second.version)
    assert release.rules_of(settings) == spring
    (tmp_path / "mine.json").write_text('{"version": "mine"}')
    named = settings.model_copy(update={"rules": tmp_path / "mine.json"})
    assert release.rules_of(named).name == "mine"


def test_rules_that_were_changed_in_a_release_are_refused(settings: Settings) -> None:
    store, found = ReleaseStore(settings.releases), made(settings, 1)
    (store.path(found.version) / "rules.json").write_text('{"exclude_seen": true}')
    with pytest.raises(ReleaseError, match="it was changed"):
        store.rules(found)
