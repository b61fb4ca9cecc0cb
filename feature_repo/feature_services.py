"""The sets of features that are asked for together."""

import on_demand
import views
from feast import FeatureService

from contracts.features import FEATURE_SERVICE, TRENDS_SERVICE, VIEWS, of_view


def _ranked(name: str) -> list[str]:
    return [feature.name for feature in of_view(name) if feature.ranked]


ranker = FeatureService(
    name=FEATURE_SERVICE,
    features=[
        getattr(on_demand if view.on_demand else views, name)[_ranked(name)]
        for name, view in VIEWS.items()
        if _ranked(name)
    ],
    description="The ranker's columns.",
    owner="nextclick",
)
trends = FeatureService(
    name=TRENDS_SERVICE,
    features=[views.item_windows, views.category_windows],
    description="What happens around items and categories now.",
    owner="nextclick",
)
