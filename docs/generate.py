"""Write the pages that are made from `contracts/`, or check that they are up to date.

python docs/generate.py           writes docs/events.md, docs/settings.md and docs/features.md
python docs/generate.py --check   exit code 3 when a page differs from what would be written
"""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from contracts import events, features
from contracts.fields import MAX_ID
from contracts.settings import PREFIX, ROOT, Settings

FOLDER = Path(__file__).resolve().parent
NOTICE = "<!-- Made from {source} by docs/generate.py: change it there, then `make docs`. -->"


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "events.md": events_page(),
        "settings.md": settings_page(),
        "features.md": features_page(),
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of the pages in `folder` that differ from what would be written."""
    return [name for name, text in pages().items() if _read(folder / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def _page(title: str, source: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTICE.format(source=source), *parts]) + "\n"


# --- events ------------------------------------------------------------------------------------

NOW = 1_767_225_600_000
EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    events.Event: {
        "session_id": "s-81", "type": "click", "time": "2026-01-01T00:00:00Z", "item_id": "1004856",
        "position": 3, "device": "mobile", "source": "search", "price": 130.76,
    },
    events.Product: {
        "item_id": "1004856", "time": NOW, "category": "electronics.smartphone", "brand": "samsung",
    },
    events.PriceChange: {"item_id": "1004856", "time": NOW, "price": 119.0, "available": True},
    events.Impression: {
        "request_id": "6f1c", "session_id": "s-81", "time": NOW, "release": "r20260101-000000-v1",
        "items": ["1004856", "1004767"], "scores": [1.25, 0.5],
        "sources": [["covisitation", "vector"], ["popular"]], "degraded": [],
    },
    events.ServedRows: {
        "request_id": "6f1c", "session_id": "s-81", "time": NOW, "asked_at": NOW,
        "release": "r20260101-000000-v1", "index": "i20260101-000000", "session_version": 118, "events": [],
        "context": {"device": 2}, "exclude": ["1004870"], "rules": [], "candidates": 100, "degraded": [],
        "visited": ["1004870"], "visited_versions": {"item_catalogue": [NOW], "item_activity": [-1]},
        "versions": {"item_catalogue": [NOW, NOW], "item_activity": [NOW, -1]},
        "features": ["price", "views_7d"], "items": ["1004856", "1004767"],
        "rows": [[130.76, 42.0], [None, 7.0]], "scores": [1.25, 0.5],
    },
}  # fmt: skip
"""One message of each topic. Those that come from outside are parsed before they are printed."""
PARSERS: dict[type[BaseModel], Callable[..., BaseModel]] = {
    events.Event: events.parse_event,
    events.Product: events.parse_product,
    events.PriceChange: events.parse_price,
}
TOPICS: dict[events.Topic, tuple[type[BaseModel], str, str]] = {
    events.Topic.events: (events.Event, "session", "shops, through POST /v1/events or Kafka"),
    events.Topic.products: (events.Product, "item", "shops"),
    events.Topic.prices: (events.PriceChange, "item", "shops"),
    events.Topic.impressions: (events.Impression, "session", "the recommendation service"),
    events.Topic.served: (events.ServedRows, "session", "the recommendation service"),
}


def events_page() -> str:
    prefix = Settings.model_fields["topic_prefix"].default
    limits = (
        f"Schema version {events.SCHEMA_VERSION}. A message is one JSON object in UTF-8. A field"
        f" that is not listed is refused. Ids have 1 to {MAX_ID} characters without control"
        f" characters. A time is milliseconds since 1970 UTC or ISO 8601 (without a zone: UTC), at"
        f" most {_duration(events.CLOCK_SKEW)} after the receiver's clock. A pause of over"
        f" {_duration(events.SESSION_IDLE)} ends a visit. Every topic has the prefix"
        f" `{prefix}` (`{PREFIX}TOPIC_PREFIX`)."
    )
    topics = (_topic(topic, *rest) for topic, rest in TOPICS.items())
    return _page(
        "Events and messages",
        "contracts/events.py",
        limits,
        *topics,
        _dead_letters(),
        _enum("Event types", events.EventType),
        _enum("Devices", events.Device),
        _enum("Traffic sources", events.TrafficSource),
    )


def _topic(topic: events.Topic, model: type[BaseModel], key: str, writer: str) -> str:
    fields = _table(
        ["field", "type", "required", "meaning"],
        (
            [f"`{name}`", _type(field), _required(field), field.description or MEANINGS[name]]
            for name, field in model.model_fields.items()
        ),
    )
    example = EXAMPLES[model]
    if model in PARSERS:
        PARSERS[model](example, NOW)
    return "\n\n".join(
        [
            f"## `{topic.value}`: {model.__name__}",
            f"{_first_line(model)} Key: {key}. Written by {writer}.",
            fields,
            f"```json\n{json.dumps(example, indent=2)}\n```",
        ]
    )


MEANINGS = {
    "asked_at": "The server's clock when the request came; `time` may lie after it.",
    "index": "The candidate index that proposed.",
    "session_version": "Which state of the session was read: Kafka offset of the newest message that changed it; -1 none.",
    "events": "The request's own events.",
    "context": "What the request said of device and source, as codes.",
    "exclude": "Items that were no candidates: the request or a business rule excluded them.",
    "rules": "What the business rules did to the list (docs/rules.md), an item each.",
    "candidates": "How many candidates were asked for.",
    "visited": "Items visited, oldest first, the same item in a row once.",
    "visited_versions": "Of each of `visited`, by stored view: event time of the row that was read; -1 none.",
    "versions": "Of each of `items`, by stored view: event time of the row that was read; -1 none.",
    "request_id": "The answer.",
    "session_id": "The session that asked; empty where it named none.",
    "time": "When it was answered, milliseconds since 1970 UTC.",
    "release": "The release that answered.",
    "items": "Items of the answer, best first.",
    "scores": "Score of each item.",
    "sources": "Candidate sources that proposed each item.",
    "degraded": "What was missing when it was answered.",
    "features": "Names of the columns of `rows`, in the ranker's order.",
    "rows": "One list of feature values an item; null where there was none.",
}
"""Of the fields that the product writes itself."""


def _dead_letters() -> str:
    fields = {
        "origin": "Where it came in: `import:<file>`, `topic:<name>` or `api`.",
        "reason": "One of the reasons below.",
        "field": "The field at fault; empty for the whole message.",
        "detail": "What came and what was expected.",
        "raw": "The message as it came, cut to 10,000 characters.",
        "time": "When it was refused, milliseconds since 1970 UTC.",
    }
    return "\n\n".join(
        [
            f"## `{events.Topic.dead_letters.value}`: what was refused",
            "Nothing is dropped in silence. What POST /v1/events refuses is named in its answer and"
            " goes here; what the consumer refuses goes here and to the lake's table"
            " `dead_letters`; what an import refuses goes to that table.",
            _table(["field", "meaning"], ([f"`{n}`", text] for n, text in fields.items())),
            "### Reasons",
            _table(["reason", "when"], ([f"`{r.value}`", REASONS[r]] for r in events.Reason)),
        ]
    )


REASONS = {
    events.Reason.not_json: "The message is not JSON in UTF-8.",
    events.Reason.not_an_object: "It is JSON, but no object.",
    events.Reason.unknown_field: "It has a field that is not listed.",
    events.Reason.no_session: "`session_id` is absent, null or empty.",
    events.Reason.no_item: "`item_id` is absent, null or empty where the type needs one.",
    events.Reason.no_time: "`time` is absent, null or empty.",
    events.Reason.bad_time: "`time` is no time, or outside the years 1970 to 2199.",
    events.Reason.time_in_future: "`time` is further ahead of the receiver's clock than allowed.",
    events.Reason.unknown_type: "`type` is none of the event types.",
    events.Reason.bad_id: "An id is no text, too long, or holds control characters.",
    events.Reason.negative_price: "`price` is below 0.",
    events.Reason.bad_value: "Another field has a value that it cannot have.",
    events.Reason.repeat: "An import saw the same event before.",
}


def _enum(title: str, enum: type[IntEnum]) -> str:
    rows = ([f"`{member.name}`", str(int(member)), _notes(member)] for member in enum)
    if enum is events.EventType:
        return f"## {title}\n\n" + _table(["name", "stored as", "notes"], rows)
    return f"## {title}\n\n" + _table(["name", "stored as"], (row[:2] for row in rows))


def _notes(member: IntEnum) -> str:
    notes = {
        "needs an item": events.ITEM_TYPES,
        "shows interest in the item": events.INTEREST_TYPES,
        "is predicted": events.CLICK_TYPES,
    }
    return ", ".join(note for note, members in notes.items() if member in members)


# --- types -------------------------------------------------------------------------------------

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _type(field: FieldInfo) -> str:
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return "one of " + ", ".join(f"`{name}`" for name in kind.__members__)
    if any("to_milliseconds" in repr(part) for part in field.metadata):
        return "time"
    return _plain(field.annotation)


def _plain(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if kind is type(None) else _plain(kind) for kind in inner)
    if origin is list:
        return f"list of {_plain(inner[0])}"
    if hasattr(annotation, "__metadata__"):
        return _plain(inner[0])
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _required(field: FieldInfo) -> str:
    return "yes" if field.is_required() else "no"


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


# --- settings ----------------------------------------------------------------------------------


def settings_page() -> str:
    rows = (
        [f"`{PREFIX}{name.upper()}`", _default(field), _choices(field), field.description or ""]
        for name, field in Settings.model_fields.items()
    )
    return _page(
        "Settings",
        "contracts/settings.py",
        "Every setting is an environment variable; the defaults name the embedded stack. HOME is"
        f" the value of `{PREFIX}HOME`, the repository is where this checkout lies. A variable that"
        f" begins with `{PREFIX}` and is not listed is an error.",
        _table(["variable", "default", "values", "meaning"], rows),
    )


def _default(field: FieldInfo) -> str:
    """The default without machine paths: those below the checkout are shown relative to it."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        inside = value.is_absolute() and value.is_relative_to(ROOT)
        value = "" if value == Path() else value.relative_to(ROOT) if inside else value
    return "(empty)" if str(value) == "" else f"`{value}`"


def _choices(field: FieldInfo) -> str:
    if get_args(field.annotation):
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = (
        f"{text} {getattr(part, sign):,}"
        for part in field.metadata
        for sign, text in signs.items()
        if getattr(part, sign, None) is not None
    )
    patterns = (f"`{part.pattern}`" for part in field.metadata if getattr(part, "pattern", None))
    return ", ".join([*bounds, *patterns])


# --- features ----------------------------------------------------------------------------------


def features_page() -> str:
    ranked = len(features.RANKED)
    views = _table(
        ["view", "group", "entities", "maximum age", "meaning"],
        (
            [f"`{v.name}`", v.group.value, ", ".join(v.entities) or "none", _age(v), v.meaning]
            for v in features.VIEWS.values()
        ),
    )
    return _page(
        "Features",
        "contracts/features.py",
        f"{len(features.FEATURES)} features, of which {ranked} are columns of the ranker's matrix, in"
        f" this order; Feast's feature service is `{features.FEATURE_SERVICE}`. A value older than its"
        " view's maximum age is missing, online and offline. nan tells LightGBM that a value is"
        " missing.",
        "## Views\n\n" + views,
        *(_view(view) for view in features.VIEWS.values()),
    )


def _view(view: features.View) -> str:
    rows = (
        [
            f"`{feature.name}`",
            f"`{feature.dtype.value}`",
            "nan" if math.isnan(feature.default) else f"{feature.default:g}",
            "yes" if feature.ranked else "no",
            feature.meaning,
        ]
        for feature in features.of_view(view.name)
    )
    return f"## `{view.name}`\n\n" + _table(
        ["feature", "type", "default", "ranked", "meaning"], rows
    )


def _age(view: features.View) -> str:
    if view.on_demand:
        return "computed when asked"
    return "none" if view.max_age is None else _duration(view.max_age)


def _duration(duration: timedelta) -> str:
    minutes = duration // timedelta(minutes=1)
    for size, name in ((24 * 60, "days"), (60, "hours")):
        if minutes % size == 0:
            return f"{minutes // size} {name}"
    return f"{minutes} minutes"


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    old = stale()
    if arguments:
        if old:
            print(f"out of date: {', '.join(old)}: run `make docs`", file=sys.stderr)  # noqa: T201
        return 3 if old else 0
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
