"""The tables of the lake and of the offline store: where they lie and what their columns are.

Lake: what came in, as it came, written by the consumer to
`<lake>/<table>/day=YYYY-MM-DD/*.parquet` (day of the row's `time`, UTC). A message stands there
once; while a crashed consumer has not been started again, what it had not committed may be seen,
and goes away then. The same event may have been sent twice: readers de-duplicate by id.
Offline: what the jobs make of it, at `<offline>/<table>/`.
Times are int64 milliseconds since 1970 UTC, but for Feast's two timestamp columns.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from contracts.features import VIEWS, DType, of_view

EVENT_TIMESTAMP = "event_timestamp"
"""Feast's event time, a UTC timestamp: from when the row's values hold."""
CREATED_TIMESTAMP = "created_timestamp"
"""When the row became known: the window's end plus the job's usual delay, also in a backfill."""

ACTIVITY_DELAY = timedelta(minutes=10)
"""From the end of a day to its row being known: by then all is known that counts before that end
(`contracts.known.LATENESS`), and the job that starts then finds it in the lake."""


class Lake(StrEnum):
    events = "events"
    products = "products"
    prices = "prices"
    impressions = "impressions"
    served = "served"
    dead_letters = "dead_letters"


class Offline(StrEnum):
    events_clean = "events_clean"
    session = "session"
    item_catalogue = "item_catalogue"
    item_activity = "item_activity"
    buckets = "buckets"  # <offline>/buckets/until=<milliseconds>/
    item_windows = "item_windows"
    category_windows = "category_windows"
    queries = "queries"
    item_vectors = "item_vectors"  # <offline>/item_vectors/cutoff=<milliseconds>/


LABEL_KINDS = ("click", "cart", "purchase")
"""What became of a label in the rest of its visit, the strongest last: no more than the click, put
into the cart, bought."""
Columns = dict[str, str]
"""Column name to Arrow type, as text."""

STORED_ITEM_VIEWS = tuple(
    view.name
    for view in VIEWS.values()
    if view.entities == ("item",)
    and not view.on_demand
    and any(feature.ranked for feature in of_view(view.name))
)
"""Those that an answer is made from."""
ASKED = (
    "index", "events", "context", "exclude", "rules", "candidates", "degraded", "visited", "visited_versions",
)  # fmt: skip
"""Fields of a served answer that its rows share."""


def version_column(view: str) -> str:
    """Column of `Lake.served`: the event time of the row of the view that was read; -1 none."""
    return f"{view}_version"


_KAFKA: Columns = {"received": "int64", "partition": "int32", "offset": "int64"}
"""When the message became known, and where it lay in Kafka. Known: by Kafka's time of the message;
one that tells of the past (contracts.events.BACKFILL_HEADER) since its own time."""

LAKE_COLUMNS: dict[Lake, Columns] = {
    Lake.events: {
        "event_id": "string",
        "session_id": "string",
        "type": "string",  # name of EventType
        "time": "int64",
        "item_id": "string",
        "position": "int32",
        "device": "string",  # name of Device
        "source": "string",  # name of TrafficSource
        "price": "double",
        "quantity": "int32",
        "query": "string",
        "request_id": "string",
        **_KAFKA,
    },
    Lake.products: {
        "item_id": "string",
        "time": "int64",
        "category": "string",
        "brand": "string",
        "description": "string",
        **_KAFKA,
    },
    Lake.prices: {
        "item_id": "string",
        "time": "int64",
        "price": "double",
        "available": "bool",
        **_KAFKA,
    },
    Lake.impressions: {
        "request_id": "string",
        "session_id": "string",
        "time": "int64",
        "release": "string",
        "items": "list<string>",
        "scores": "list<double>",
        "sources": "list<list<string>>",
        "degraded": "list<string>",
        **_KAFKA,
    },
    # one row an item of an answer (contracts.events.ServedRows); beside these, one float column for
    # each ranked feature of the release that answered, so columns differ from file to file: read
    # by name. `asked`: JSON of the fields of `ASKED`, the same in all rows of an answer
    Lake.served: {
        "request_id": "string",
        "session_id": "string",
        "time": "int64",
        "release": "string",
        "item_id": "string",
        "place": "int32",  # from 1
        "score": "double",
        "asked_at": "int64",
        "session_version": "int64",
        "asked": "string",
        **{version_column(view): "int64" for view in STORED_ITEM_VIEWS},
        **_KAFKA,
    },
    Lake.dead_letters: {
        "origin": "string",
        "reason": "string",
        "field": "string",
        "detail": "string",
        "raw": "string",
        "time": "int64",
        # where it lay in the topic that `origin` names (an API's: in the dead-letter topic); null:
        # an import's
        "partition": "int32",
        "offset": "int64",
    },
}

_FEAST: Columns = {EVENT_TIMESTAMP: "timestamp", CREATED_TIMESTAMP: "timestamp"}


def _of(view: str) -> Columns:
    arrow = {DType.float32: "float"}
    return {
        feature.name: arrow.get(feature.dtype, feature.dtype.value) for feature in of_view(view)
    }


OFFLINE_COLUMNS: dict[Offline, Columns] = {
    # each event once, in the order of (session, time, event); `visit` is the session cut at 30
    # minutes idle: the session's own id for its first visit, then `<session>~2`, `<session>~3` ...
    Offline.events_clean: {
        "visit": "string",
        "session_id": "string",
        "event_id": "string",
        "key": "int64",  # Event.key
        "type": "int32",  # code of EventType
        "time": "int64",
        "item_id": "string",
        "position": "int32",  # -1 unknown
        "device": "int32",
        "source": "int32",
        "price": "double",
        "request_id": "string",
        "offset": "int64",  # its place in its Kafka partition; -1 unknown
        "received": "int64",  # when it became known
    },
    # one row for each message that changed a session: the state and the features after it, as the
    # online store held them from then on; event time: of the newest event in the state; created:
    # when that message became known. Both session views read this table
    Offline.session: {"session_id": "string", **_FEAST, **_of("session"), **_of("context")},
    Offline.item_catalogue: {"item_id": "string", **_FEAST, **_of("item_catalogue")},
    Offline.item_activity: {"item_id": "string", **_FEAST, **_of("item_activity")},
    # what is counted (spark_jobs.item_days.MEASURES) in 5 minutes that end at `end`, of an item or of
    # a category (`entity`), where any is not 0; everything that ended by the folder's `until`
    Offline.buckets: {
        "entity": "string",
        "key": "string",
        "end": "int64",
        "views": "int64",
        "list_views": "int64",
        "carts": "int64",
        "purchases": "int64",
        "impressions": "int64",
    },
    # a row where a window's value changes: at the end of a bucket, and when it leaves a window. The
    # stream's rows lie in the same folders, in files of its own: stream-*.parquet
    Offline.item_windows: {"item_id": "string", **_FEAST, **_of("item_windows")},
    Offline.category_windows: {"category_name": "string", **_FEAST, **_of("category_windows")},
    # one row a prediction that could have been made: at `moment` (when the visit's last event then
    # had become known) the visitor had visited `visited` (contracts.session.items_of), and `label` is
    # the item clicked or viewed next in the visit, different from the last visited, and `kind` what
    # became of it (LABEL_KINDS)
    Offline.queries: {
        "visit": "string",
        "session_id": "string",
        "moment": "int64",
        "visited": "list<string>",
        "label": "string",
        "label_time": "int64",
        "kind": "string",
    },
    Offline.item_vectors: {"item_id": "string", "vector": "list<float>"},
}
