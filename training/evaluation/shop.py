"""A shop's history as a file gives it: one form for session tables and for event files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.events import CLICK_TYPES, EventType
from contracts.session import KEPT_EVENTS, SessionEvent, session_features
from training.history import Query

Longs = npt.NDArray[np.int64]
_CART, _PURCHASE = int(EventType.add_to_cart), int(EventType.checkout)
CLICKS = frozenset(int(kind) for kind in CLICK_TYPES)


@dataclass(frozen=True)
class Shop:
    """events: the columns of `Offline.events_clean` that are read, by visit and time, no two events
    of a visit at the same time; catalogue: `Offline.item_catalogue`, None where the file tells
    nothing of items. cutoff: milliseconds; visits that begin later are the test part. length: of a
    label window. current: whether the item that is looked at may be proposed, and a second click on
    it counts as a next click, as in published evaluations; the default rules never list it. unknown:
    ranked features that the file cannot tell. left_out: rows of the file by the reason why they do
    not count, or what is amiss with them."""

    name: str
    events: pa.Table
    catalogue: pa.Table | None
    first: int
    cutoff: int
    length: int
    current: bool
    unknown: frozenset[str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def items(self) -> npt.NDArray[np.object_]:
        return np.asarray(self.events["item_id"].to_numpy(zero_copy_only=False), dtype=object)

    @cached_property
    def times(self) -> Longs:
        return np.asarray(self.events["time"].to_numpy(), dtype=np.int64)

    @cached_property
    def kinds(self) -> npt.NDArray[np.int32]:
        return np.asarray(self.events["type"].to_numpy(), dtype=np.int32)

    @cached_property
    def starts(self) -> Longs:
        """Where each visit's events begin, and one end more."""
        visits = self.events["visit"].combine_chunks().dictionary_encode().indices.to_numpy()
        first = np.flatnonzero(np.diff(visits, prepend=-1))
        return np.append(first, len(visits)).astype(np.int64)

    def before(self, moment: int) -> pa.Table:
        """The events before a moment: all that may be learned from."""
        return self.events.filter(pa.array(self.times < moment))

    def train_clicks(self) -> dict[str, int]:
        """Views and clicks of each item of the train part."""
        early = (self.times < self.cutoff) & np.isin(self.kinds, list(CLICKS))
        items, counts = np.unique(self.items[early].astype(str), return_counts=True)
        return dict(zip(items.tolist(), counts.tolist(), strict=True))

    def prefixes(self, start: int, end: int) -> list[tuple[int, int]]:
        """(first event, event of the label) of every query of the visits that begin in [start, end)."""
        begins = self.times[self.starts[:-1]]
        chosen = np.flatnonzero((begins >= start) & (begins < end))
        return [
            (int(self.starts[visit]), place)
            for visit in chosen
            for place in range(int(self.starts[visit]) + 1, int(self.starts[visit + 1]))
            if self._is_query(place)
        ]

    def _is_query(self, label: int) -> bool:
        if self.kinds[label] not in CLICKS:
            return False
        return self.current or self.items[label] != self.items[label - 1]

    def query(self, prefix: tuple[int, int]) -> Query:
        first, label = prefix
        begin = max(first, label - KEPT_EVENTS)
        visited = self.items[begin:label].tolist()
        if not self.current:
            visited = [
                item
                for place, item in enumerate(visited)
                if not place or item != visited[place - 1]
            ]
        name = self.visit_of(first)
        return Query(
            name, name, int(self.times[label - 1]), tuple(visited), self.items[label],
            int(self.times[label]), self._kind(label),
        )  # fmt: skip

    def _kind(self, label: int) -> str:
        """What became of the label in the rest of its visit."""
        end = int(self.starts[np.searchsorted(self.starts, label, side="right")])
        same = self.items[label:end] == self.items[label]
        kinds = set(self.kinds[label:end][same].tolist())
        if _PURCHASE in kinds:
            return "purchase"
        return "cart" if _CART in kinds else "click"

    def visit_of(self, event: int) -> str:
        return str(self.events["visit"][event].as_py())

    def session_columns(
        self, prefixes: Sequence[tuple[int, int]]
    ) -> dict[tuple[str, int], Mapping[str, float]]:
        """Session features by (visit, moment), by the function that serves."""
        return {
            (self.visit_of(first), int(self.times[label - 1])): session_features(
                list(self.session_events(max(first, label - KEPT_EVENTS), label))
            )
            for first, label in prefixes
        }

    def session_events(self, begin: int, end: int) -> Iterator[SessionEvent]:
        for place in range(begin, end):
            yield SessionEvent(
                int(self.times[place]), place, int(self.kinds[place]), self.items[place], -1, 0, 0
            )
