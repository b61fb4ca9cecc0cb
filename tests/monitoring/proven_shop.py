"""A shop whose answers can be proved: the real pipeline and index over tables made by hand.

The online side is dictionaries, the offline side Parquet files and a plain loop for retrieval: a
test changes either one and sees what the proof says of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from candidate_service.client import LocalCandidates
from candidate_service.index import CandidateIndex
from contracts.candidates import CandidateSet
from contracts.deadline import Deadline
from contracts.events import ServedRows, Topic
from contracts.features import BY_NAME, RANKED, VIEWS, DType, fingerprint, of_view
from contracts.release import Release, ReleaseStore, ranker_folder
from contracts.session import SessionEvent, SessionState, fold, session_features, visit
from contracts.settings import Settings
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, OFFLINE_COLUMNS, Offline
from feast_engine.publications import Publication
from monitoring.parity import ParityReport, parity
from monitoring.served import Selection
from orchestrator.consumer.buffer import LakeBuffer, Limits
from orchestrator.consumer.lake import ParquetLake
from orchestrator.consumer.parsing import Message, Parsed
from orchestrator.consumer.ports import Record
from orchestrator.metrics import Metrics
from orchestrator.parts import World, assemble
from orchestrator.ports import Floats, ItemRows
from orchestrator.request import parse_recommend
from tests.candidate_service.shop import planted_index
from tests.orchestrator.fakes import FakeImpressions, FakeLog, FakeStore

DAY = 86_400_000
MINUTE = 60_000
MIDNIGHT = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOON = MIDNIGHT + DAY // 2
ITEMS = tuple(f"i{number:02d}" for number in range(40))
ITEM_VIEWS = ("item_catalogue", "item_activity")
Row = dict[str, Any]


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def catalogue_row(item: str, time: int, price: float) -> Row:
    number = ITEMS.index(item)
    return {
        "item_id": item, EVENT_TIMESTAMP: at(time), CREATED_TIMESTAMP: at(time + 1000),
        "category": f"c{number % 5}", "brand": f"b{number % 3}", "category_id": 1 + number % 5,
        "brand_id": number % 3, "available": 1, "price": price,
    }  # fmt: skip


def activity_row(item: str, end: int) -> Row:
    """A day's row; every feature has a value of its own: 100 times its place, the item's number,
    a hundredth of the day's."""
    number, day = ITEMS.index(item), (end - MIDNIGHT) // DAY
    values = {
        feature.name: 100.0 * place + number + day / 100
        for place, feature in enumerate(of_view("item_activity"))
    }
    created = at(end + 10 * MINUTE)
    return {"item_id": item, EVENT_TIMESTAMP: at(end), CREATED_TIMESTAMP: created, **values}


def session_rows(session: str, events: Sequence[tuple[SessionEvent, int]]) -> list[Row]:
    """The versions of a session's state. events: with when each became known."""
    rows, state = [], SessionState()
    for event, known in events:
        state = fold(state, [event])
        rows.append(
            {
                "session_id": session, EVENT_TIMESTAMP: at(state.events[-1].time),
                CREATED_TIMESTAMP: at(known), **state.columns(),
                **session_features(visit(state, state.events[-1].time)),
            }
        )  # fmt: skip
    return rows


def click(item: str, time: int, offset: int) -> SessionEvent:
    return SessionEvent(time, 1000 + offset, 3, item, offset % 7, 2, 1, offset)


@dataclass
class Online:
    """The online store: what was written last, and whether the age is looked at."""

    states: dict[str, SessionState] = field(default_factory=dict)
    rows: dict[str, dict[str, Row]] = field(default_factory=lambda: {v: {} for v in ITEM_VIEWS})
    ages: bool = True
    down: tuple[str, ...] = ()

    async def session(self, session_id: str, moment: int) -> SessionState:
        if "session" in self.down:
            raise ConnectionError("down, says the fake")
        state = self.states.get(session_id, SessionState())
        time = state.events[-1].time if state.events else moment
        return SessionState() if self._old("session", time, moment) else state

    async def items(self, items: Sequence[str], names: Sequence[str], moment: int) -> ItemRows:
        if "features" in self.down:
            raise ConnectionError("down, says the fake")
        columns: dict[str, npt.NDArray[Any]] = {}
        versions: dict[str, npt.NDArray[np.int64]] = {}
        for view in dict.fromkeys(BY_NAME[name].view for name in names):
            found = [self._row(view, item, moment) for item in items]
            versions[view] = np.array([-1 if row is None else ms(row) for row in found], np.int64)
            for name in names:
                if BY_NAME[name].view == view:
                    columns[name] = _values(name, [row and row[name] for row in found])
        return ItemRows(columns, versions)

    def _row(self, view: str, item: str, moment: int) -> Row | None:
        row = self.rows[view].get(item)
        return None if row is None or self._old(view, ms(row), moment) else row

    def _old(self, view: str, time: int, moment: int) -> bool:
        age = VIEWS[view].max_age
        return self.ages and age is not None and moment - time > age.total_seconds() * 1000


def ms(row: Row) -> int:
    return int(row[EVENT_TIMESTAMP].timestamp() * 1000)


def _values(name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
    if BY_NAME[name].dtype is DType.int64:
        return np.array([value or 0 for value in values], dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


class Finder(LocalCandidates):
    """Candidates of the index, unless they are down for all but popular items."""

    def __init__(self, index: CandidateIndex, online: Online) -> None:
        super().__init__(index)
        self._online = online

    async def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str], timeout: float
    ) -> CandidateSet:
        if items and "candidates" in self._online.down:
            raise ConnectionError("down, says the fake")
        return await super().candidates(items, count, exclude, timeout)


@dataclass
class NativeRanker:
    """LightGBM in this process. `added`: what a wrong server adds to each score."""

    booster: lightgbm.Booster
    added: float = 0.0

    async def rank(self, rows: Floats, version: int, timeout: float) -> Floats:
        return np.asarray(self.booster.predict(rows) + self.added, dtype=np.float32)

    async def prepare(self, version: int, columns: int) -> None:
        return None


def small_ranker() -> lightgbm.Booster:
    """A ranker that looks at features of every kind."""
    draw = np.random.default_rng(3)
    rows = draw.normal(size=(400, len(RANKED))) * 100
    rows[draw.random(rows.shape) < 0.2] = np.nan
    wanted = np.nan_to_num(rows[:, [RANKED.index(n) for n in ("price", "views_7d", "best_rank")]])
    settings = {"verbose": -1, "num_leaves": 15, "num_threads": 1, "seed": 1}
    return lightgbm.train(settings, lightgbm.Dataset(rows, wanted.sum(axis=1)), 20)


class ProvenShop:
    """Offline and online agree, until a test changes one of them."""

    def __init__(self, folder: Path) -> None:
        budgets = {f"{name}_budget_ms": 5000 for name in ("session", "candidates", "features")}
        self.settings = Settings.model_validate(
            {"home": folder, "models": folder / "models", "candidate_count": 30,
             "deadline_ms": 10_000, "ranking_budget_ms": 5000, **budgets}
        )  # fmt: skip
        self.online = Online()
        self.offline: dict[str, list[Row]] = {
            "item_catalogue": [catalogue_row(i, MIDNIGHT - 9 * DAY, 10 + n) for n, i in enumerate(ITEMS)],
            "item_activity": [activity_row(i, MIDNIGHT + d * DAY) for i in ITEMS for d in (-2, -1, 0)],
            "session": [],
        }  # fmt: skip
        self.publications = [
            Publication(view, NOON - 60 * MINUTE, NOON - 60 * MINUTE, NOON - 59 * MINUTE, 40)
            for view in ITEM_VIEWS
        ]
        for view in ITEM_VIEWS:
            self.online.rows[view] = {row["item_id"]: dict(row) for row in self.offline[view]}
        self.ranker = NativeRanker(small_ranker())
        self.index = planted_index(self.settings.indexes)
        self.impressions = FakeImpressions()
        self.release("r1")

    def release(self, version: str, index: CandidateIndex | None = None) -> None:
        folder = ranker_folder(self.settings.models, 1)
        folder.mkdir(parents=True, exist_ok=True)
        self.ranker.booster.save_model(str(folder / "model.txt"))
        self.index = index or self.index
        store = ReleaseStore(self.settings.releases)
        store.add(
            Release(
                version=version, created=at(NOON), ranker_version=1, mlflow_run="run",
                index_version=self.index.version, features=RANKED, fingerprint=fingerprint(),
                feature_service="ranker_v1", rules_version="default", metrics={}, parity=0.0,
            )
        )  # fmt: skip
        (store.path(version) / "rules.json").write_text('{"version": "default"}')
        store.activate(version)

    def visit(self, session: str, items: Sequence[str], first: int, lag: int = 5) -> None:
        """Clicks a minute apart that are known after `lag` ms, offline and online."""
        offset = 10 * len(self.offline["session"])
        events = [
            (click(item, first + n * MINUTE, offset + n), first + n * MINUTE + lag)
            for n, item in enumerate(items)
        ]
        self.offline["session"] += session_rows(session, events)
        self.online.states[session] = fold(SessionState(), [event for event, _ in events])

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, now: int, k: int = 10, **body: Any) -> dict[str, Any]:
        """An answer of the real pipeline over the online side."""
        world = World(
            sessions=self.online, items=self.online, ranker=self.ranker,
            find=lambda release: Finder(self.index, self.online), event_log=FakeLog(FakeStore()),
            impressions=self.impressions,
        )  # fmt: skip
        parts = assemble(self.settings, world, Metrics())
        request = parse_recommend(json.dumps({"k": k, **body}).encode(), self.settings, now)

        async def answer() -> dict[str, Any]:
            down, self.online.down = self.online.down, ()
            await parts.follower.check()
            self.online.down = down
            return await parts.pipeline.recommend(request, Deadline(10))

        return asyncio.run(answer())

    def served(self) -> list[ServedRows]:
        return self.impressions.of(Topic.served)

    # --- proving ---------------------------------------------------------------------------------

    def store(self) -> None:
        """The lake, the offline tables and the publications, as files."""
        messages = [(topic, message) for topic, _, message in self.impressions.messages]
        buffer = LakeBuffer(Limits())
        buffer.add([_parsed(n, topic, message) for n, (topic, message) in enumerate(messages)], 0.0)
        buffer.store(ParquetLake(self.settings.lake))
        for table, rows in self.offline.items():
            write_table(Path(self.settings.offline), Offline(table), rows)
        for each in self.publications:
            folder = Path(self.settings.offline) / "publications" / each.view
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{each.started_ms}-{each.until_ms}.json"
            path.write_text(json.dumps(asdict(each)))

    def prove(self, selection: Selection | None = None, **options: Any) -> ParityReport:
        self.store()
        return parity(
            self.settings, self.settings.offline, self._retrieve, selection=selection, **options
        )

    def _retrieve(self, asked: pd.DataFrame, views: Sequence[str]) -> pd.DataFrame:
        """The newest row of the item that was there and known at the moment: a plain loop."""
        (view,) = views
        rows = [
            self._as_of(view, item, moment)
            for item, moment in zip(asked["item_id"], asked[EVENT_TIMESTAMP], strict=True)
        ]
        columns = {
            feature.name: _values(feature.name, [row and row[feature.name] for row in rows])
            for feature in of_view(view)
            if feature.dtype is not DType.string
        }
        texts = {f.name: "" for f in of_view(view) if f.dtype is DType.string}
        return asked.assign(**columns, **texts)

    def _as_of(self, view: str, item: str, moment: datetime) -> Row | None:
        known = [
            row
            for row in self.offline[view]
            if row["item_id"] == item
            and max(row[EVENT_TIMESTAMP], row[CREATED_TIMESTAMP]) <= moment
        ]
        return max(known, key=ms, default=None)


def _parsed(offset: int, topic: Topic, message: Any) -> Parsed:
    known: Message = message
    return Parsed(Record(topic, 0, offset, b"", known=message.time), known)


def write_table(offline: Path, table: Offline, rows: Sequence[Row]) -> None:
    schema = pa.schema([(name, _arrow(kind)) for name, kind in OFFLINE_COLUMNS[table].items()])
    (offline / table).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), offline / table / "part.parquet")


def _arrow(kind: str) -> pa.DataType:
    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[5:-1]))
    return pa.timestamp("us", "UTC") if kind == "timestamp" else pa.type_for_alias(kind)
