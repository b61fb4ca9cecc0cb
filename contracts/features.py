"""Every feature: its name, type, home, default and meaning; and the one order of the ranker's columns.

To add an item feature, declare it here in `item_activity` and write the function of the same name
in `contracts/item_features.py`: Feast's definitions, the Spark schema, training, serving, Triton's
configuration, drift columns and `docs/features.md` follow from these two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from contracts.candidates import SIGNAL_MEANINGS, SOURCES
from contracts.errors import UsageError

FEATURE_SERVICE = "ranker_v1"
"""Feast's name for the set of features of the ranker. A new number when old rankers must keep theirs."""
TRENDS_SERVICE = "item_trends_v1"
"""Feast's name for what happens around items and categories now: the windows that move with time."""
TREND_STEP = timedelta(minutes=5)
"""Windows of trends begin and end at multiples of this, UTC."""
TREND_WINDOWS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7)}
"""Their lengths, by what the names of their features end with."""


class Group(StrEnum):
    session = "session"
    context = "context"
    item = "item"
    pair = "pair"


class DType(StrEnum):
    float32 = "float32"
    int64 = "int64"
    string = "string"
    list_int64 = "list<int64>"
    list_string = "list<string>"


@dataclass(frozen=True)
class View:
    """A group of features that are written together: a feature view of Feast.

    `max_age`: a value older than this at the moment it is asked for is missing, online and
    offline; None: it never ages. A view with `on_demand` is computed when asked for. `as_known`:
    offline, a row counts only if it was created at or before the moment asked for.
    """

    name: str
    group: Group
    entities: tuple[str, ...]
    max_age: timedelta | None
    meaning: str
    on_demand: bool = False
    as_known: bool = True

    @property
    def join_keys(self) -> tuple[str, ...]:
        """Columns that name a row: `session_id` for the entity session."""
        return tuple(_JOIN_KEYS.get(entity, f"{entity}_id") for entity in self.entities)


_JOIN_KEYS = {"category": "category_name"}
"""Of entities whose `<entity>_id` is something else: category_id is a feature, a number."""


@dataclass(frozen=True)
class Feature:
    """`default` is what the ranker sees where there is no value; nan means "missing" to LightGBM.

    `ranked`: a column of the ranker's matrix.
    """

    name: str
    view: str
    meaning: str
    dtype: DType = DType.float32
    default: float = float("nan")
    ranked: bool = True

    @property
    def group(self) -> Group:
        return VIEWS[self.view].group


VIEWS = {
    view.name: view
    for view in (
        View("session", Group.session, ("session",), timedelta(minutes=30), "What the visitor did in this visit; pushed at every event."),
        View("context", Group.context, ("session",), timedelta(minutes=30), "How the visitor came; pushed at every event."),
        View("moment", Group.context, (), None, "When the request is made.", on_demand=True),
        View("item_catalogue", Group.item, ("item",), None, "What the shop says of the item."),
        View("item_activity", Group.item, ("item",), timedelta(days=3), "What visitors did with the item, over windows that end with a day (UTC)."),
        View("item_windows", Group.item, ("item",), TREND_WINDOWS["7d"], "What visitors do with the item, over windows that move in steps of 5 minutes."),
        View("category_windows", Group.item, ("category",), TREND_WINDOWS["7d"], "The same over all items of a category, as the catalogue named it then."),
        View("session_item", Group.pair, ("session", "item"), None, "The visit beside a candidate.", on_demand=True),
    )
}  # fmt: skip


def _features(view: str, dtype: DType, ranked: bool, meanings: Mapping[str, str]) -> list[Feature]:
    return [
        Feature(name, view, meaning, dtype, ranked=ranked) for name, meaning in meanings.items()
    ]


_TRENDS = {
    "views": "Views and clicks in the last {}.",
    "carts": "Times put into a cart in the last {}.",
    "purchases": "Times bought in the last {}.",
    "impressions": "Times shown in a list in the last {}.",
    "click_rate": "Views and clicks from a list over (impressions + 20) in the last {}.",
}
_WINDOW_TEXTS = {"1h": "hour", "1d": "day", "7d": "7 days"}


def _trends(entity: str) -> list[Feature]:
    meanings = {
        f"{entity}_{name}_{window}": meaning.format(_WINDOW_TEXTS[window])
        for name, meaning in _TRENDS.items()
        for window in TREND_WINDOWS
    }
    return _features(f"{entity}_windows", DType.float32, False, meanings)


FEATURES: tuple[Feature, ...] = (
    # the session's state (contracts.session.SessionState), from which everything else follows. The
    # version comes first: of rows of one time, offline, the one with the greatest values counts
    *_features("session", DType.int64, False, {"session_version": "Kafka offset of the newest message that changed the state; -1 none."}),
    *_features("session", DType.list_int64, False, {
        "event_offset": "Their places in their Kafka partition: the order in which they became known; -1 unknown.",
        "event_time": "Milliseconds since 1970 of the newest events, oldest first.",
        "event_key": "64 bits of their event ids.",
        "event_type": "Their types (EventType).",
        "event_position": "Their places in a listing; -1 unknown.",
        "event_device": "Their devices (Device).",
        "event_source": "Their traffic sources (TrafficSource).",
    }),
    *_features("session", DType.list_string, False, {"event_item": "Their items; empty where there is none."}),
    *_features("session", DType.float32, True, {
        "session_events": "Events of the visit, heartbeats aside.",
        "session_items": "Items visited, the same item in a row once.",
        "session_distinct_items": "Different items visited.",
        "session_searches": "Searches.",
        "session_carts": "Items put into the cart.",
        "session_purchases": "Items bought.",
        "session_duration": "Seconds from the first to the last event.",
        "session_mean_gap": "Mean seconds between events.",
        "session_last_gap": "Seconds between the last two events.",
        "session_last_position": "Place in the listing of the last item that had one.",
    }),
    *_features("context", DType.float32, True, {
        "device": "Device (code of Device), the last one known.",
        "traffic_source": "Traffic source (code of TrafficSource), the last one known.",
    }),
    *_features("moment", DType.float32, True, {
        "hour": "Hour of the day, UTC.",
        "weekday": "Day of the week, Monday 0, UTC.",
    }),
    *_features("item_catalogue", DType.string, False, {
        "category": "Category, broad to narrow, parted by dots.",
        "brand": "Brand.",
    }),
    *_features("item_catalogue", DType.int64, False, {
        "category_id": "52 bits of the category's text (contracts.features.text_id); 0 unknown.",
        "brand_id": "52 bits of the brand's text; 0 unknown.",
        "available": "1 when it can be bought, 0 when not.",
    }),
    *_features("item_catalogue", DType.float32, True, {"price": "Price."}),
    *_features("item_activity", DType.float32, True, {
        "views_1d": "Views and clicks in the last day.",
        "views_7d": "Views and clicks in the last 7 days.",
        "views_30d": "Views and clicks in the last 30 days.",
        "views_share_30d": "views_30d over (all views and clicks until then + 1).",
        "carts_30d": "Times put into a cart in the last 30 days.",
        "purchases_30d": "Times bought in the last 30 days.",
        "cart_rate_30d": "carts_30d over (views_30d + 10).",
        "purchase_rate_30d": "purchases_30d over (views_30d + 10).",
        "trend_7d": "(views_7d + 1) over (a quarter of views_30d + 1): above 1 when rising.",
        "days_since_seen": "Days from the last view or click to the end of the window.",
        "days_since_new": "Days from the first view or click to the end of the window, 30 at most; missing before it.",
        "impressions_7d": "Times shown in a list in the last 7 days.",
        "click_rate_7d": "views_7d that came from a list over (impressions_7d + 20).",
    }),
    # no columns of the ranker's yet: whether they help it is to be measured first
    *_trends("item"),
    *_trends("category"),
    *(
        Feature(f"{source}_{kind}", "session_item", meaning.format(source))
        for source in SOURCES
        for kind, meaning in (
            ("score", "Score of the candidate in the source {}."),
            ("rank", "Its place there, from 1."),
        )
    ),
    *_features("session_item", DType.float32, True, dict(SIGNAL_MEANINGS)),
    *_features("session_item", DType.float32, True, {
        "sources_found": "Sources that proposed the candidate.",
        "best_rank": "Its best place in any source.",
        "times_in_session": "Times the candidate was visited in this visit.",
        "steps_since_visited": "Items visited since then.",
        "followed_last": "Times it was visited directly after an earlier visit of the last item.",
        "repeat_share": "Share of the visit's clicks that went to an item visited before.",
        "same_category": "1 when it has the category of the last item.",
        "category_share": "Share of the visit's items that have its category.",
        "same_brand": "1 when it has the brand of the last item.",
        "brand_share": "Share of the visit's items that have its brand.",
        "price_to_last": "Natural logarithm of its price over the last item's.",
        "price_to_mean": "Natural logarithm of its price over the geometric mean of the visit's items.",
        "last_views_7d": "views_7d of the last item.",
        "views_to_last": "Natural logarithm of (its views_7d + 1) over (the last item's + 1).",
    }),
)  # fmt: skip

BY_NAME: dict[str, Feature] = {feature.name: feature for feature in FEATURES}
RANKED: tuple[str, ...] = tuple(feature.name for feature in FEATURES if feature.ranked)
"""The ranker's columns, in order. A ranker keeps the order it was trained with (its release)."""

if len(BY_NAME) != len(FEATURES):
    raise UsageError("contracts/features.py: a feature name is declared twice")


def of_view(view: str) -> tuple[Feature, ...]:
    """The features of a view, in declared order."""
    return tuple(feature for feature in FEATURES if feature.view == view)


def matrix(
    columns: Mapping[str, npt.ArrayLike], rows: int, names: Sequence[str] = RANKED
) -> npt.NDArray[np.float32]:
    """The ranker's input [rows, len(names)]: the only code that puts named columns in an order.

    A column is an array of `rows` values or one value for all rows. Missing values (nan, None,
    masked) take the feature's default. UsageError for a column that is absent or not declared: a
    column that is lost on the way must never look like a missing value.
    """
    out = np.empty((len(names), rows), dtype=np.float32)  # a column is written in one run
    for index, name in enumerate(names):
        if name not in columns:
            raise UsageError(
                f"the ranker needs the column {name!r}, which was not computed; there are {sorted(columns)}"
            )
        values = np.asarray(columns[name], dtype=np.float32)  # None becomes nan
        default = BY_NAME[name].default
        if default == default:  # noqa: PLR0124  not nan: there is something to put in
            values = np.where(np.isnan(values), np.float32(default), values)
        out[index] = values
    return np.ascontiguousarray(out.T)


def fingerprint(names: Sequence[str] = RANKED) -> str:
    """16 hex digits over what the ranker relies on: the columns, their order, type, age, default."""
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageError(
            f"features that contracts/features.py does not declare: {', '.join(unknown)}"
        )
    rows = [[n, BY_NAME[n].view, BY_NAME[n].dtype, str(BY_NAME[n].default), _age(n)] for n in names]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _age(name: str) -> float | None:
    max_age = VIEWS[BY_NAME[name].view].max_age
    return None if max_age is None else max_age.total_seconds()


def text_id(text: str | None) -> int:
    """A text as a number from 1 to 2^52 - 1, the same everywhere and always; 0 for none.

    52 bits, because a column with gaps becomes double precision in pandas: none may be lost there.
    """
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 12) or 1
