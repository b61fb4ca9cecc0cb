"""The join asked through Feast's own API, in a small repository made for a case: the same for any
of its offline stores."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.repo_config import RepoConfig
from feast.types import Array, Float32, Int64, String

from feast_engine.join_rule import JoinRule
from tests.feast_engine.oracle import Case, Implementation

OURS = "feast_engine.offline_store.AsofOfflineStore"
TYPES = {
    pa.float32(): Float32,
    pa.int64(): Int64,
    pa.string(): String,
    pa.list_(pa.int64()): Array(Int64),
}
VALUES = {pa.int64(): ValueType.INT64, pa.string(): ValueType.STRING}


def through_feast(offline: str) -> Implementation:
    """offline: Feast's name of the store."""

    def join(case: Case, folder: Path) -> pa.Table:
        return ask(open_store(folder, offline), [case], folder / "history")

    return join


def open_store(folder: Path, offline: str) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project="joins",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={"type": offline},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
    )
    config.repo_path = folder
    return FeatureStore(config=config)


def ask(store: Any, cases: Sequence[Case], folder: Path) -> pa.Table:
    """The rows of the first case with the features of all: of each case a view, `view0` ..., over
    files in a folder of its own. Several views: their features are named `view0__price`."""
    refs = define(store, cases, folder)
    return answer(store, cases[0], [ref for of_case in refs for ref in of_case], len(cases) > 1)


def define(store: Any, cases: Sequence[Case], folder: Path) -> list[list[str]]:
    """Write each case's files and apply its view. Returns each one's features as Feast names them."""
    views = [
        view_of(f"view{place}", case, case.write(folder / str(place)))
        for place, case in enumerate(cases)
    ]
    store.apply([*entities_of(cases), *views])
    return [
        [f"{view.name}:{name}" for name in case.rule.features]
        for view, case in zip(views, cases, strict=True)
    ]


def answer(store: Any, case: Case, refs: Sequence[str], full_names: bool = False) -> pa.Table:
    # numbers of a column with gaps stay whole numbers
    frame = case.entity.to_pandas(integer_object_nulls=True)
    asked = case.rule.as_known and case.flag and store.config.offline_store.type != OURS
    with quiet():
        return store.get_historical_features(
            entity_df=frame, features=list(refs), full_feature_names=full_names,
            **({"filter_by_created_timestamp": True} if asked else {}),
        ).to_arrow()  # fmt: skip


def entities_of(cases: Sequence[Case]) -> list[Any]:
    kinds = {own: case.schema.field(own).type for case in cases for own in case.rule.keys.values()}
    return [
        Entity(name=key, join_keys=[key], value_type=VALUES[kind]) for key, kind in kinds.items()
    ]


def view_of(name: str, case: Case, path: Path) -> Any:
    rule, schema = case.rule, case.schema
    source = FileSource(
        name=f"{name}_source",
        path=str(path),
        file_format=ParquetFormat(),
        timestamp_field=rule.event,
        created_timestamp_column=rule.created or "",
    )
    listed = [*rule.keys.values(), *rule.features]
    fields = [Field(name=each, dtype=TYPES[schema.field(each).type]) for each in listed]
    return FeatureView(
        name=name,
        entities=entities_of([case]),
        ttl=rule.max_age or timedelta(0),
        schema=fields,
        source=source,
        tags=tags_of(rule),
    )


def tags_of(rule: JoinRule) -> dict[str, str]:
    return {} if rule.as_known else {"as_known": "false"}


@contextlib.contextmanager
def quiet() -> Any:
    """Feast's stores print and warn."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
