"""The stored views: their features, entities and ages are those of `contracts.features`."""

from datetime import timedelta

import data_sources
import entities
from feast import FeatureView, Field
from feast.data_source import DataSource
from feast.types import String
from fields import fields_of, tags_of

from contracts.features import VIEWS


def _view(name: str, source: DataSource) -> FeatureView:
    view = VIEWS[name]
    return FeatureView(
        name=name,
        entities=[getattr(entities, entity) for entity in view.entities],
        ttl=view.max_age or timedelta(0),  # 0: its values never age
        schema=[*(Field(name=key, dtype=String) for key in view.join_keys), *fields_of(view)],
        source=source,
        description=view.meaning,
        tags=tags_of(view),
        owner="nextclick",
    )


session = _view("session", data_sources.session_push)
context = _view("context", data_sources.session_push)
item_catalogue = _view("item_catalogue", data_sources.item_catalogue)
item_activity = _view("item_activity", data_sources.item_activity)
item_windows = _view("item_windows", data_sources.item_windows)
category_windows = _view("category_windows", data_sources.category_windows)
