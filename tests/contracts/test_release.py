"""Releases: written whole, named in one step, refused with a reason."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.errors import ReleaseError
from contracts.features import RANKED, fingerprint
from contracts.release import Release, ReleaseStore


def release(version: str, mark: str | None = None) -> Release:
    return Release(
        version=version, created=datetime(2026, 1, 1, tzinfo=UTC), ranker_version=1, mlflow_run="r",
        index_version="i", features=RANKED, fingerprint=mark or fingerprint(RANKED),
        feature_service="ranker_v1", rules_version="none", metrics={"hit@20": 0.5}, parity=0.0,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    store = ReleaseStore(tmp_path / "releases")
    for version in ("r2", "r1"):
        store.add(release(version))
    return store


def test_what_is_added_is_read_back(store: ReleaseStore) -> None:
    assert store.versions() == ["r1", "r2"]
    assert store.get("r1") == release("r1")


def test_no_release_is_active_until_one_is(store: ReleaseStore, tmp_path: Path) -> None:
    assert store.active() is None
    assert ReleaseStore(tmp_path / "nowhere").active() is None
    assert ReleaseStore(tmp_path / "nowhere").versions() == []
    store.activate("r2")
    assert store.active() == release("r2")


@pytest.mark.parametrize("version", ["r3", "", "..", "../releases/r1", "ACTIVE"])
def test_an_unknown_version_is_refused_and_changes_nothing(
    store: ReleaseStore, version: str
) -> None:
    store.activate("r1")
    with pytest.raises(ReleaseError, match="there are: r1, r2"):
        store.activate(version)
    assert store.active_version() == "r1"


def test_a_folder_without_a_manifest_is_no_release(store: ReleaseStore) -> None:
    (store.folder / "half").mkdir()
    assert "half" not in store.versions()


def test_a_damaged_manifest_is_named(store: ReleaseStore) -> None:
    (store.folder / "r1" / "release.json").write_text('{"version": "r1"}')
    with pytest.raises(ReleaseError, match=r"release\.json is no release manifest"):
        store.get("r1")


def test_readers_never_see_half_a_switch(store: ReleaseStore) -> None:
    store.activate("r1")
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(store.active_version())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        store.activate("r2")
        store.activate("r1")
    stop.set()
    reader.join()
    assert seen <= {"r1", "r2"}
    assert {path.name for path in store.folder.iterdir()} == {"ACTIVE", "r1", "r2"}


def test_features_that_changed_their_meaning_are_refused() -> None:
    release("r1").check_features()
    with pytest.raises(ReleaseError, match=r"trained on features 0123.*\./nextclick train"):
        release("r1", "0123").check_features()
