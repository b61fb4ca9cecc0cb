"""Fakes of every port of the pipeline, each of which can be made to fail or to hang."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.errors import ServiceError
from contracts.events import Event, Topic
from contracts.features import RANKED, fingerprint
from contracts.release import Release, ReleaseStore
from contracts.session import SessionState, fold
from contracts.settings import Settings
from orchestrator.metrics import Metrics
from orchestrator.parts import Parts, World, assemble
from orchestrator.ports import Floats, ItemRows, Message, RankerRefused, RankerUnavailable

ITEMS = tuple(f"i{number}" for number in range(200))
"""The shop; `i0` is the most popular, and after `i7` comes `i8`."""


@dataclass
class Trouble:
    """`down`: every call raises; `slow`: every call takes so many seconds."""

    down: bool = False
    slow: float = 0.0

    async def strike(self) -> None:
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.down:
            raise ConnectionError("down, says the fake")


@dataclass
class FakeStore:
    """Sessions and items. An item's price is its number; views_7d falls with it."""

    states: dict[str, SessionState] = field(default_factory=dict)
    session_trouble: Trouble = field(default_factory=Trouble)
    item_trouble: Trouble = field(default_factory=Trouble)
    asked: list[list[str]] = field(default_factory=list)

    async def session(self, session_id: str, moment: int) -> SessionState:
        await self.session_trouble.strike()
        return self.states.get(session_id, SessionState())

    async def items(
        self,
        items: Sequence[str],
        names: Sequence[str],
        moment: int,
    ) -> ItemRows:
        await self.item_trouble.strike()
        self.asked.append(list(items))
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.full(len(items), np.nan, dtype=np.float32) for name in names
        }
        numbers = [int(item[1:]) if item in ITEMS else np.nan for item in items]
        columns["price"] = np.array(numbers, dtype=np.float32)
        columns["category_id"] = np.ones(len(items), dtype=np.int64)
        columns["brand_id"] = np.zeros(len(items), dtype=np.int64)
        known = np.array([5000 + int(item[1:]) if item in ITEMS else -1 for item in items])
        return ItemRows(columns, {"item_catalogue": known})


@dataclass
class FakeFinder:
    """The session source proposes the ten items after each visited one; the rest is popular."""

    version: str = "index-1"
    trouble: Trouble = field(default_factory=Trouble)
    asked: list[list[str]] = field(default_factory=list)

    async def candidates(
        self,
        items: Sequence[str],
        count: int,
        exclude: Sequence[str],
        timeout: float,
    ) -> CandidateSet:
        await self.trouble.strike()
        self.asked.append(list(items))
        after = [
            ITEMS[(ITEMS.index(item) + step) % len(ITEMS)]
            for item in reversed(items)
            if item in ITEMS
            for step in range(1, 11)
        ]
        last = items[-1] if items else None
        merged = [i for i in dict.fromkeys([*after, *ITEMS]) if i not in exclude and i != last]
        chosen = merged[:count]
        ranks = np.full((len(chosen), len(SOURCES)), np.nan, dtype=np.float32)
        for row, item in enumerate(chosen):
            if item in after:
                ranks[row, SOURCES.index("session")] = after.index(item) + 1
            ranks[row, SOURCES.index("popular")] = ITEMS.index(item) + 1
        return CandidateSet(
            tuple(chosen), np.float32(1) / ranks, ranks, unknown_signals(len(chosen))
        )


@dataclass
class FakeRanker:
    """Scores a row by the features that a release ranks by: the session source's score first, then
    a higher price. `versions`: what is loaded; `loadable`: what `prepare` may load."""

    versions: set[int] = field(default_factory=set)
    loadable: set[int] = field(default_factory=lambda: {1, 2})
    trouble: Trouble = field(default_factory=Trouble)
    calls: list[tuple[int, Floats]] = field(default_factory=list)
    answer: float | None = None

    async def rank(self, rows: Floats, version: int, timeout: float) -> Floats:
        await self.trouble.strike()
        if version not in self.versions:
            raise RankerRefused(f"no version {version}")
        self.calls.append((version, rows))
        if self.answer is not None:
            return np.full(len(rows), self.answer, dtype=np.float32)
        session = np.nan_to_num(rows[:, RANKED.index("session_score")])
        price = np.nan_to_num(rows[:, RANKED.index("price")])
        return np.asarray(session * 10_000 + price, dtype=np.float32)

    async def prepare(self, version: int, columns: int) -> None:
        if self.trouble.down:
            raise RankerUnavailable("down, says the fake")
        if version not in self.loadable:
            raise RankerRefused(f"no version {version}")
        self.versions.add(version)
        await self.rank(np.zeros((1, columns), dtype=np.float32), version, 1.0)


@dataclass
class FakeLog:
    """Acknowledged events; they are folded into the store at once, as the consumer would."""

    store: FakeStore
    events: list[tuple[str, bytes]] = field(default_factory=list)
    trouble: Trouble = field(default_factory=Trouble)

    async def publish(
        self,
        topic: Topic,
        messages: Sequence[tuple[str, bytes]],
    ) -> None:
        try:
            await self.trouble.strike()
        except ConnectionError as error:
            raise ServiceError(str(error)) from None
        for session, value in messages:
            self.events.append((session, value))
            state = self.store.states.get(session, SessionState())
            self.store.states[session] = fold(state, [Event.model_validate_json(value)])


@dataclass
class FakeImpressions:
    messages: list[tuple[Topic, str | None, Message]] = field(default_factory=list)

    def put(self, topic: Topic, key: str | None, message: Message) -> None:
        message.to_json()
        self.messages.append((topic, key, message))

    def of(self, topic: Topic) -> list[Any]:
        return [message for at, _, message in self.messages if at is topic]


@dataclass
class FakeWorld:
    """A whole API on fakes; `activate` writes a release and makes it the active one."""

    settings: Settings
    store: FakeStore = field(default_factory=FakeStore)
    finder: FakeFinder = field(default_factory=FakeFinder)
    ranker: FakeRanker = field(default_factory=FakeRanker)
    impressions: FakeImpressions = field(default_factory=FakeImpressions)
    log: FakeLog = field(init=False)
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self.log = FakeLog(self.store)
        world = World(
            sessions=self.store,
            items=self.store,
            ranker=self.ranker,
            find=lambda release: self.finder,
            event_log=self.log,
            impressions=self.impressions,
        )
        self.parts = assemble(self.settings, world, Metrics())

    def activate(self, version: str, ranker: int = 1, **changed: Any) -> None:
        fields = {"index_version": self.finder.version, **changed}
        store = ReleaseStore(self.settings.releases)
        store.add(a_release(version, ranker, **fields))
        store.activate(version)


def a_release(version: str, ranker: int = 1, **changed: Any) -> Release:
    fields: dict[str, Any] = {
        "version": version,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "ranker_version": ranker,
        "mlflow_run": "run",
        "index_version": "index-1",
        "features": RANKED,
        "fingerprint": fingerprint(),
        "feature_service": "ranker_v1",
        "rules_version": "none",
        "metrics": {},
        "parity": 0.0,
    }
    return Release(**{**fields, **changed})


def settings_in(folder: Path, **changed: Any) -> Settings:
    return Settings(home=folder, **changed)
