"""Views that are computed when they are asked for, around the functions of `contracts`.

Feast keeps the source text of these functions in its registry and runs it there: each brings its
own imports, and its annotations need none.
"""

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64
from fields import TYPES, computed_fields_of, tags_of
from views import item_activity, item_catalogue, session

from contracts.features import BY_NAME, VIEWS
from contracts.pair import ACTIVITY, CATALOGUE
from contracts.pair_rows import ASKED_AT, SOURCE_COLUMNS, STATE_COLUMNS, VISITED_COLUMNS

asked = RequestSource(
    name="asked",
    schema=[Field(name=ASKED_AT, dtype=Int64)],
    description="The moment that is asked for, milliseconds since 1970 UTC.",
    owner="nextclick",
)
candidate = RequestSource(
    name="candidate",
    schema=[
        *(Field(name=name, dtype=Float32) for name in SOURCE_COLUMNS),
        *(
            Field(name=name, dtype=Array(TYPES[BY_NAME[feature].dtype]))
            for name, feature in VISITED_COLUMNS.items()
        ),
    ],
    description="What the sources said of the candidate, and the catalogue of the visit's items.",
    owner="nextclick",
)

for _source in (asked, candidate):
    # the times of this import: with them, `feast plan` would show a change at every run
    _source.created_timestamp = _source.last_updated_timestamp = None


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    name="moment",
    sources=[asked],
    schema=computed_fields_of(VIEWS["moment"]),
    mode="python",
    description=VIEWS["moment"].meaning,
    tags=tags_of(VIEWS["moment"]),
    owner="nextclick",
)
def moment(inputs: dict[str, list[int]]) -> dict[str, list[object]]:
    import numpy as np

    from contracts.moment import moment_features

    rows = [moment_features(int(asked_at)) for asked_at in inputs["asked_at"]]
    return {name: [np.float32(row[name]) for row in rows] for name in rows[0]}


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    name="session_item",
    sources=[
        session[list(STATE_COLUMNS)],
        item_catalogue[list(CATALOGUE)],
        item_activity[list(ACTIVITY)],
        asked,
        candidate,
    ],
    schema=computed_fields_of(VIEWS["session_item"]),
    mode="python",
    description=VIEWS["session_item"].meaning,
    tags=tags_of(VIEWS["session_item"]),
    owner="nextclick",
)
def session_item(inputs: dict[str, list[object]]) -> dict[str, list[object]]:
    from contracts.pair_rows import pair_rows

    return pair_rows(inputs)
