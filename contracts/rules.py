"""Business rules: what a shop wants of its lists whatever the ranker thinks, as a declared file.

The file is a part of the release; `arrange` is the one function that applies it: serving,
evaluation and replay call it. `docs/rules.md` shows every rule by an example.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.candidates import SOURCES, CandidateSet
from contracts.errors import UsageError
from contracts.features import text_id
from contracts.fields import MAX_ID

RULES_FILE = "rules.json"
COLUMNS = ("category_id", "brand_id", "price", "available", "days_since_new")
"""Item features that rules look at."""
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


NO_RULES = "none"
"""What releases without a file of rules name."""
OLDEST = 30.0
"""Days that `days_since_new` counts to at most: an age from here on is none."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Match(_Strict):
    """Items that a rule is about: all that is given must hold. A category is its whole text, as the
    catalogue names it."""

    items: tuple[str, ...] = Field((), max_length=1000)
    category: str | None = Field(None, min_length=1)
    brand: str | None = Field(None, min_length=1)
    price_from: float | None = Field(None, ge=0)
    price_to: float | None = Field(None, ge=0)
    new_within_days: float | None = Field(None, gt=0, lt=OLDEST)

    @model_validator(mode="after")
    def _names_something(self) -> Match:
        if not self.model_dump(exclude_defaults=True, exclude={"by"}):
            raise ValueError("matches every item: say which items, category, brand, price or age")
        if None not in (self.price_from, self.price_to) and self.price_from > self.price_to:  # type: ignore[operator]
            raise ValueError(f"price_from {self.price_from} is above price_to {self.price_to}")
        return self


class Shift(Match):
    """Boost (above 0) or bury (below 0): `by` standard deviations of the list's scores."""

    by: float = Field(ge=-10, le=10)

    @model_validator(mode="after")
    def _moves(self) -> Shift:
        if self.by == 0:
            raise ValueError("by: 0 moves nothing")
        return self


class Pin(_Strict):
    """An item at a place, counted from 1, whatever its score; to visitors whose last item has the
    category, where one is given."""

    item: str = Field(min_length=1, max_length=MAX_ID)
    place: int = Field(ge=1, le=100)
    when_category: str | None = Field(None, min_length=1)


class Quota(_Strict):
    """At most so many items of one category in a list."""

    most: int = Field(ge=1)


class Freshness(_Strict):
    """At least so many items that are new in a list, where there are as many candidates."""

    least: int = Field(ge=1)
    new_within_days: float = Field(gt=0, lt=OLDEST)


class Rules(_Strict):
    """The file. `version` names it in releases and answers; without one it is named by its content."""

    version: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    exclude_current: bool = True
    exclude_seen: bool = False
    exclude_unavailable: bool = True
    pins: tuple[Pin, ...] = Field((), max_length=100)
    shifts: tuple[Shift, ...] = Field((), max_length=100)
    category_quota: Quota | None = None
    freshness: Freshness | None = None

    @model_validator(mode="after")
    def _agree(self) -> Rules:
        if self.version == NO_RULES:
            raise ValueError(f"version: {NO_RULES!r} names releases without rules, say another")
        for what in ("item", "place"):
            seen = [(getattr(pin, what), pin.when_category) for pin in self.pins]
            for value, category in seen:
                if seen.count((value, category)) > 1:
                    where = f" for the category {category}" if category else ""
                    raise ValueError(f"pins: two of them name the {what} {value}{where}")
        return self

    @property
    def name(self) -> str:
        """`version`, or 12 hex digits over what the file says."""
        content = self.model_dump_json(exclude={"version"}, exclude_defaults=True)
        return self.version or hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def moves(self) -> bool:
        """Whether a list may stand in another order than that of its scores."""
        return bool(self.pins or self.shifts or self.category_quota or self.freshness)

    def left_out(
        self, visited: Sequence[str], exclude: Sequence[str], seen: bool | None = None
    ) -> list[str]:
        """Items that are not even candidates. seen: what the request says of `exclude_seen`."""
        unwanted = self.exclude_seen if seen is None else seen
        own = visited if unwanted else visited[-1:] if self.exclude_current else ()
        return list(dict.fromkeys([*exclude, *own]))


DEFAULT = Rules(version="default")


def read_rules(path: Path) -> Rules:
    """UsageError says what is wrong with the file, and where."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # as some editors write it
        rules = Rules.model_validate_json(text, strict=True)
        json.loads(text, object_pairs_hook=each_once)
    except OSError as error:
        raise UsageError(f"rules {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"rules {path}: no UTF-8 text; expected JSON (docs/rules.md)") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        came = first.get("input")
        got = f", got {came!r}"[:100] if isinstance(came, str | int | float) else ""
        raise UsageError(f"rules {path}: {where}: {first['msg']}{got} (docs/rules.md)") from None
    except ValueError as error:
        raise UsageError(f"rules {path}: {error} (docs/rules.md)") from None
    if rules.version == DEFAULT.version and rules != DEFAULT:
        raise UsageError(
            f"rules {path}: version {rules.version!r} names the rules without a file, say"
            " another (docs/rules.md)"
        )
    return rules


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of two values of one name, and forgets the other."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: stands there twice")
    return dict(pairs)


@dataclass(frozen=True)
class Effect:
    """What a rule did to an item: from and to which place (from 1; None: out of the list)."""

    rule: str
    item: str
    before: int | None
    after: int | None

    def as_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "item": self.item, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Arrangement:
    """order: rows of the candidates, best first, at most k; effects: what differs from the order of
    scores, and why."""

    order: npt.NDArray[np.intp]
    effects: tuple[Effect, ...] = ()


def arrange(
    rules: Rules, items: Sequence[str], scores: Floats, known: dict[str, npt.NDArray[Any]], k: int,
    last_category: int = 0,
) -> Arrangement:  # fmt: skip
    """The list of k that the rules allow.

    items: n candidates; scores: [n], higher is better; known: the columns `COLUMNS` [n], ids 0 and
    numbers nan where nothing is known (an item of which availability is not known can be bought, one
    that nobody viewed is new); last_category: `category_id` of the item that is looked at.
    """
    by_score = np.argsort(-scores, kind="stable")
    gone = (
        (known["available"] == 0) if rules.exclude_unavailable else np.zeros(len(items), dtype=bool)
    )
    if not rules.moves and not gone.any():
        return Arrangement(by_score[:k])
    moved = _Moved(by_score)
    order = moved.to(by_score[~gone[by_score]], [("exclude_unavailable", np.flatnonzero(gone))])
    if rules.shifts:
        shifted = _shifted(rules, items, scores, known, order)
        order = moved.to(shifted, _shift_names(rules, items, known))
    if rules.category_quota is not None:
        kept = _within_quota(rules.category_quota.most, known["category_id"], order, k)
        order = moved.to(kept, [("category_quota", _lower(order, kept, known["category_id"]))])
    if rules.freshness is not None:
        new = np.flatnonzero(_new(known, rules.freshness.new_within_days))
        order = moved.to(_fresh(rules.freshness, known, order, k), [("freshness", new)])
    if rules.pins:
        pins = {pin.item for pin in applying(rules, last_category)}
        about = np.array([row for row, item in enumerate(items) if item in pins], dtype=np.intp)
        order = moved.to(_pinned(rules, items, order, last_category), [("pin", about)])
    return Arrangement(order[:k], moved.effects(items, k))


About = tuple[str, npt.NDArray[np.intp]]
"""A rule's name, and the rows that it is about."""


class _Moved:
    """Which rule moved a row last: of those that a rule is about, the ones whose place it changed."""

    def __init__(self, by_score: npt.NDArray[np.intp]) -> None:
        self._by_score = self._now = by_score
        self._rule: dict[int, str] = {}

    def to(self, order: npt.NDArray[np.intp], rules: Sequence[About]) -> npt.NDArray[np.intp]:
        """Notes what `rules` changed to come to this order, and gives it."""
        before, after = _places(self._now), _places(order)
        for rule, about in rules:
            for row in about.tolist():
                if before.get(row) != after.get(row):
                    self._rule[row] = rule
        self._now = order
        return order

    def effects(self, items: Sequence[str], k: int) -> tuple[Effect, ...]:
        """Of rows that stood or stand in the list, at another place than by score."""
        before, after = _places(self._by_score[:k]), _places(self._now[:k])
        told = [row for row in self._rule if before.get(row) != after.get(row)]
        told.sort(key=lambda row: after.get(row, before.get(row, 0)))
        return tuple(
            Effect(self._rule[row], items[row], before.get(row), after.get(row)) for row in told
        )


def _places(order: npt.NDArray[np.intp]) -> dict[int, int]:
    return {row: place + 1 for place, row in enumerate(order.tolist())}


def _shift_names(
    rules: Rules, items: Sequence[str], known: dict[str, npt.NDArray[Any]]
) -> list[About]:
    return [
        ("boost" if shift.by > 0 else "bury", np.flatnonzero(_matches(shift, items, known)))
        for shift in rules.shifts
    ]


def _lower(
    before: npt.NDArray[np.intp], after: npt.NDArray[np.intp], category: Ids
) -> npt.NDArray[np.intp]:
    """Rows of a known category that stand lower than before."""
    place = _places(after)
    rows = [row for row, was in _places(before).items() if category[row] and place[row] > was]
    return np.array(rows, dtype=np.intp)


def known_of(
    columns: Mapping[str, npt.NDArray[Any]], candidates: CandidateSet
) -> dict[str, npt.NDArray[Any]]:
    """The columns `COLUMNS` as `arrange` takes them. columns: item features of the candidates.

    An item without an age is new, unless it was clicked before: then nobody clicks it any more.
    """
    clicked = candidates.scores[:, SOURCES.index("popular")] > 0
    age = np.asarray(columns["days_since_new"], dtype=np.float32)
    known = {name: columns[name] for name in COLUMNS}
    return known | {"days_since_new": np.where(np.isnan(age) & clicked, np.float32(OLDEST), age)}


def _new(known: dict[str, npt.NDArray[Any]], days: float) -> npt.NDArray[np.bool_]:
    age = np.asarray(known["days_since_new"], dtype=np.float64)
    return np.isnan(age) | (age <= days)


def _matches(
    match: Match, items: Sequence[str], known: dict[str, npt.NDArray[Any]]
) -> npt.NDArray[np.bool_]:
    found = np.ones(len(items), dtype=bool)
    if match.items:
        wanted = frozenset(match.items)
        found &= np.array([item in wanted for item in items], dtype=bool)
    if match.category is not None:
        found &= known["category_id"] == text_id(match.category)
    if match.brand is not None:
        found &= known["brand_id"] == text_id(match.brand)
    if match.price_from is not None:
        found &= known["price"] >= match.price_from
    if match.price_to is not None:
        found &= known["price"] <= match.price_to
    if match.new_within_days is not None:
        found &= _new(known, match.new_within_days)
    return found


def _shifted(
    rules: Rules, items: Sequence[str], scores: Floats, known: dict[str, npt.NDArray[Any]],
    order: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:  # fmt: skip
    moved = scores.astype(np.float64)
    spread = float(moved.std()) or 1.0
    for shift in rules.shifts:
        moved = moved + shift.by * spread * _matches(shift, items, known)
    rows: npt.NDArray[np.intp] = order[np.argsort(-moved[order], kind="stable")]
    return rows


def _within_quota(
    most: int, category: Ids, order: npt.NDArray[np.intp], k: int
) -> npt.NDArray[np.intp]:
    """What is too much of a category comes after the list; what has none is never too much."""
    counts: dict[int, int] = {}
    kept: list[int] = []
    rest: list[int] = []
    for row in order.tolist():
        name = int(category[row])
        full = name != 0 and counts.get(name, 0) >= most
        if full or len(kept) >= k:
            rest.append(row)
        else:
            counts[name] = counts.get(name, 0) + 1
            kept.append(row)
    # better a list with too much of a category than one that is too short
    return np.array(kept + rest, dtype=np.intp)


def _fresh(
    wanted: Freshness, known: dict[str, npt.NDArray[Any]], order: npt.NDArray[np.intp], k: int
) -> npt.NDArray[np.intp]:
    """New items from below the list take the places of its lowest others."""
    new = _new(known, wanted.new_within_days)
    top, rest = order[:k].tolist(), order[k:].tolist()
    missing = min(wanted.least, k) - sum(bool(new[row]) for row in top)
    coming = [row for row in rest if new[row]][: max(missing, 0)]
    going = [row for row in reversed(top) if not new[row]][: len(coming)]
    kept = [row for row in top if row not in going]
    return np.array(
        [*kept, *coming, *going, *(row for row in rest if row not in coming)], dtype=np.intp
    )


def _pinned(
    rules: Rules, items: Sequence[str], order: npt.NDArray[np.intp], last_category: int
) -> npt.NDArray[np.intp]:
    rows = order.tolist()
    place_of = {items[row]: row for row in rows}
    pins = [pin for pin in applying(rules, last_category) if pin.item in place_of]
    for pin in pins:
        rows.remove(place_of[pin.item])
    for pin in sorted(pins, key=lambda pin: pin.place):
        rows.insert(pin.place - 1, place_of[pin.item])
    return np.array(rows, dtype=np.intp)


def applying(rules: Rules, last_category: int) -> list[Pin]:
    """The pins that hold for a visitor: those for a category go before those for all."""
    found: dict[int, Pin] = {}
    for pin in sorted(rules.pins, key=lambda pin: pin.when_category is None):
        if pin.when_category is None or text_id(pin.when_category) == last_category:
            found.setdefault(pin.place, pin)
    return list({pin.item: pin for pin in reversed(found.values())}.values())
