"""The sets of features that rankers are trained on and served with."""

import on_demand
import views
from feast import FeatureService

from contracts.features import FEATURE_SERVICE, VIEWS, of_view


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
