"""Feast's definitions equal the contracts, and every environment's yaml opens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from contracts.errors import UsageError
from contracts.features import FEATURE_SERVICE, FEATURES, RANKED, TRENDS_SERVICE, VIEWS, of_view
from contracts.settings import ROOT, Settings
from contracts.tables import OFFLINE_COLUMNS, Offline
from feast_engine.config import REPOSITORY, online_config, store_yaml

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's and its libraries' own

ENVIRONMENTS = sorted((REPOSITORY / "environments").glob("*.yaml"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What Feast finds in feature_repo/."""
    from feast.repo_operations import parse_repo

    monkeypatch = pytest.MonkeyPatch()
    before = set(sys.modules)
    monkeypatch.setenv("NEXTCLICK_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    try:
        yield parse_repo(REPOSITORY)
    finally:
        monkeypatch.undo()
        for name in set(sys.modules) - before:  # bare names: nobody else may meet them
            path = getattr(sys.modules[name], "__file__", None)
            if path and Path(path).is_relative_to(REPOSITORY):
                del sys.modules[name]


def test_every_view_is_there_with_its_fields(repository: Any) -> None:
    views = {view.name: view for view in repository.feature_views}
    views |= {view.name: view for view in repository.on_demand_feature_views}
    assert set(views) == set(VIEWS)
    for name, view in views.items():
        fields = {field.name: str(field.dtype) for field in view.features}
        assert set(fields) == {feature.name for feature in of_view(name)}


def test_stored_views_have_the_contracts_types_and_ages(repository: Any) -> None:
    feast_types = {
        "float32": "Float32",
        "int64": "Int64",
        "string": "String",
        "list<int64>": "Array(Int64)",
        "list<string>": "Array(String)",
    }
    for view in repository.feature_views:
        assert (view.ttl or timedelta(0)) == (VIEWS[view.name].max_age or timedelta(0))
        assert tuple(view.join_keys) == VIEWS[view.name].join_keys
        assert view.description == VIEWS[view.name].meaning
        declared = {f.name: (feast_types[f.dtype], f.meaning) for f in of_view(view.name)}
        assert {f.name: (str(f.dtype), f.description) for f in view.features} == declared


def test_the_feature_service_has_exactly_the_ranked_features(repository: Any) -> None:
    [service] = [each for each in repository.feature_services if each.name == FEATURE_SERVICE]
    # a service holds its views' names until the registry resolves them
    names = [f.name for view in service.feature_view_projections for f in view.features]
    assert len(names) == len(set(names))
    assert set(names) == set(RANKED)


def test_trends_are_asked_for_together_and_change_nothing_of_the_ranker(repository: Any) -> None:
    [service] = [each for each in repository.feature_services if each.name == TRENDS_SERVICE]
    names = {f.name for view in service.feature_view_projections for f in view.features}
    assert names == {f.name for f in (*of_view("item_windows"), *of_view("category_windows"))}
    assert {"item_views_1h", "item_click_rate_7d", "category_purchases_1d"} <= names
    assert not names & set(RANKED)


def test_no_key_of_a_view_has_the_name_of_a_feature(repository: Any) -> None:
    keys = {key for view in repository.feature_views for key in view.join_keys}
    assert keys == {"session_id", "item_id", "category_name"}
    assert not keys & {feature.name for feature in FEATURES}


def test_sources_hold_the_columns_of_their_views(repository: Any) -> None:
    for view in repository.feature_views:
        table = Offline(Path(view.batch_source.path).name)
        columns = OFFLINE_COLUMNS[table]
        assert {feature.name for feature in of_view(view.name)} <= set(columns)
        assert view.batch_source.timestamp_field in columns
        assert view.batch_source.created_timestamp_column in columns


def test_sessions_are_pushed(repository: Any) -> None:
    pushed = {
        view.name for view in repository.feature_views if view.stream_source is not None
    }  # fmt: skip
    assert pushed == {"session", "context"}


def test_no_field_is_declared_that_nobody_asked_for(repository: Any) -> None:
    fields = [
        field.name
        for view in [*repository.feature_views, *repository.on_demand_feature_views]
        for field in view.features
    ]
    assert sorted(fields) == sorted(feature.name for feature in FEATURES)


def test_the_plain_yaml_is_the_embedded_one_with_default_settings() -> None:
    plain = yaml.safe_load((REPOSITORY / "feature_store.yaml").read_text())
    plain["registry"] = str((REPOSITORY / plain["registry"]).resolve())
    engine = plain["batch_engine"]
    engine["offline"] = str((REPOSITORY / engine["offline"]).resolve())
    assert store_yaml(Settings.from_environment({})) == plain
    assert plain["registry"].startswith(str(ROOT))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_every_environment_opens(path: Path) -> None:
    from feast.repo_config import RepoConfig

    settings = Settings.model_validate(
        {
            "feast_yaml": path,
            "redis": "a:1,b:2",
            "feast_registry": "sqlite:///x",
            "redis_password": "s=1",
        }
    )
    config = RepoConfig(**store_yaml(settings))
    assert config.entity_key_serialization_version == 3
    assert config.offline_store.type == "feast_engine.offline_store.AsofOfflineStore"
    assert config.online_store.key_ttl_seconds
    assert online_config(settings).connection.count("password=s=1") == 1
    assert online_config(settings).cluster == (path.stem != "embedded")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("project: ${NEXTCLICK_NO_SUCH}", "NEXTCLICK_NO_SUCH"),
        ("- a list", "got list"),
        ("a: [", "not YAML"),
        ("online_store: {type: sqlite}", "GuardedRedis"),
        ("online_store: {type: redis}", "older rows"),
    ],
)
def test_a_wrong_yaml_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "feature_store.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=told):
        store_yaml(Settings.model_validate({"feast_yaml": path}))


def test_a_missing_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        store_yaml(Settings.model_validate({"feast_yaml": tmp_path / "none.yaml"}))
