"""A tiny planted shop, and fakes of what training asks the other parts for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.features import of_view
from contracts.tables import EVENT_TIMESTAMP
from training.dataset import FeatureReader
from training.history import Query

ITEMS = 60
DAY = 86_400_000


@dataclass(frozen=True)
class Visit:
    name: str
    start: int
    items: tuple[str, ...]


def planted_visits(days: int = 28, a_day: int = 15, seed: int = 0) -> list[Visit]:
    """Visits of four steps. Three times of four, what follows item i is i + 1; else anything.
    Visits begin at low numbers more often, so popularity alone knows something, but little."""
    rng = np.random.default_rng(seed)
    visits = []
    for number in range(days * a_day):
        item = int(rng.integers(ITEMS) * rng.random())
        path = [item]
        for _ in range(3):
            item = (item + 1) % ITEMS if rng.random() < 0.75 else int(rng.integers(ITEMS))
            path.append(item)
        start = number * DAY // a_day
        visits.append(Visit(f"s{number}", start, tuple(f"i{place}" for place in path)))
    return visits


def queries_of(visits: Sequence[Visit]) -> list[Query]:
    """Every prefix of every visit; a click takes a second."""
    return [
        Query(
            visit.name, visit.name, visit.start + 1000 * (step - 1), visit.items[:step],
            visit.items[step], visit.start + 1000 * step,
        )
        for visit in visits
        for step in range(1, len(visit.items))
        if visit.items[step] != visit.items[step - 1]
    ]  # fmt: skip


@dataclass
class FakeIndex:
    """Proposes what followed the last item, then what was clicked most, before the cut-off."""

    visits: Sequence[Visit]
    cutoff: int
    version: str = "fake"
    follows: Counter[tuple[str, str]] = field(default_factory=Counter)
    popular: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for visit in self.visits:
            if visit.start + 1000 * len(visit.items) < self.cutoff:
                self.popular.update(visit.items)
                self.follows.update(pairwise(visit.items))

    def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str] = ()
    ) -> CandidateSet:
        last = items[-1] if items else None
        after = {b: n for (a, b), n in self.follows.items() if a == last}
        known = [item for item, _ in self.popular.most_common() if item not in exclude]
        order = [*sorted(after, key=lambda item: -after[item]), *known]
        chosen = [item for item in dict.fromkeys(order) if item != last][:count]
        scores = np.full((len(chosen), len(SOURCES)), np.nan, dtype=np.float32)
        ranks = scores.copy()
        for row, item in enumerate(chosen):
            scores[row, SOURCES.index("popular")] = self.popular[item]
            ranks[row, SOURCES.index("popular")] = known.index(item) + 1
            if item in after:
                scores[row, SOURCES.index("covisitation")] = after[item]
                ranks[row, SOURCES.index("covisitation")] = row + 1
        return CandidateSet(tuple(chosen), scores, ranks, unknown_signals(len(chosen)))


@dataclass
class FakeReader:
    """Stored features from functions of (id, milliseconds); nan and None where none is given."""

    values: dict[str, Callable[[str, int], float]] = field(default_factory=dict)
    asked: list[pd.DataFrame] = field(default_factory=list)

    def __call__(self, entities: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
        self.asked.append(entities)
        ids = entities.iloc[:, 0]
        moments = entities[EVENT_TIMESTAMP].dt.as_unit("ms").astype("int64")
        pairs = list(zip(ids, moments, strict=True))
        columns = {
            feature.name: [self._value(feature.name, *pair) for pair in pairs]
            for view in views
            for feature in of_view(view)
        }
        return pd.DataFrame(columns, index=entities.index)

    def _value(self, name: str, key: str, moment: int) -> float:
        return self.values[name](key, moment) if name in self.values else float("nan")


@pytest.fixture(scope="session")
def visits() -> list[Visit]:
    return planted_visits()


@pytest.fixture(scope="session")
def make_index() -> type[FakeIndex]:
    return FakeIndex


@pytest.fixture(scope="session")
def make_reader() -> type[FakeReader]:
    return FakeReader


@pytest.fixture(scope="session")
def queries(visits: list[Visit]) -> list[Query]:
    return queries_of(visits)


@pytest.fixture
def read() -> FeatureReader:
    return FakeReader()
