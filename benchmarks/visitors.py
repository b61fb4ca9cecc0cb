"""Real visits, happening again now: their events through POST /v1/events, a question after each.

Visits come from the offline table `events_clean`: whatever shop the stack was filled with. Their
pauses are shortened, their times are those of now; some events arrive late and out of order, some
arrive twice, some only with a question of the visitor's.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

from benchmarks.load import open_client
from contracts.errors import ServiceError, UsageError
from contracts.events import Device, EventType, TrafficSource
from contracts.settings import Settings
from contracts.tables import Offline

LATE_SHARE, REPEATED_SHARE, CARRIED_SHARE, EXCLUDING_SHARE = 0.06, 0.06, 0.15, 0.1
LATE_SECONDS = (1.0, 8.0)
"""A late event arrives so long after it happened, when others of its visit were there already."""
VERY_LATE_MS = (6 * 60_000, 25 * 60_000)
"""A third of the late ones says that it happened so long ago: too late for windows."""
PATIENCE_SECONDS = 60.0
"""So long a call is sent again while the stack cannot take it."""
STEPS = 12
"""Events of a visit at most: a robot's thousand are no visit."""


@dataclass(frozen=True)
class Traffic:
    """`cells`: served feature values after which to end; `columns`: of an answer's item."""

    cells: int
    columns: int
    visitors: int = 12
    pause: float = 0.3  # mean seconds between a visitor's events
    k: int = 20
    seed: int = 7


@dataclass
class Seen:
    """What was sent and answered; `over`: it is time to go."""

    over: bool = False
    events: int = 0
    late: int = 0
    repeated: int = 0
    carried: int = 0
    answers: int = 0
    cells: int = 0
    unranked: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """`dataclasses.asdict` would make a Counter of a Counter's pairs."""
        return {
            name: dict(value) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
            if name != "over"
        }


Visit = list[dict[str, Any]]


def past_visits(settings: Settings, seed: int, count: int = 5000) -> list[Visit]:
    """Visits with their events, in order, drawn by hash. UsageError where there are none."""
    import duckdb

    files = f"{settings.offline}/{Offline.events_clean}/**/*.parquet"
    with duckdb.connect() as database:
        try:
            rows = database.execute(_VISITS, [files, str(seed), count]).fetchall()
        except duckdb.IOException:
            rows = []
    if not rows:
        raise UsageError(
            f"{settings.offline} holds no visits: fill the stack first (./nextclick demo)"
        )
    visits: dict[str, Visit] = {}
    for visit, kind, item, device, source, position in rows:
        event = {
            "type": EventType(kind).name, "item_id": item, "device": Device(device).name,
            "source": TrafficSource(source).name, "position": position if position >= 0 else None,
        }  # fmt: skip
        told = {name: value for name, value in event.items() if value is not None}
        visits.setdefault(visit, []).append(told)
    return list(visits.values())


_VISITS = """
WITH named AS (SELECT visit FROM read_parquet($1) GROUP BY 1 ORDER BY hash(visit || $2) LIMIT $3)
SELECT visit, type, item_id, device, source, position FROM read_parquet($1) SEMI JOIN named
USING (visit) ORDER BY hash(visit || $2), time, key
"""


async def run(
    settings: Settings,
    visits: list[Visit],
    traffic: Traffic,
    disturb: Callable[[float], bool] = lambda share: False,  # noqa: ARG005
) -> Seen:
    """Until enough cells were served. disturb: told, again and again, what share of them was; the
    visitors stay as long as it says that it is not done."""
    seen = Seen()
    queue = _forever(visits)
    draw = random.Random(traffic.seed)  # noqa: S311  # traffic, no secret
    async with open_client() as client:
        visitors = [
            asyncio.create_task(_Visitor(settings, client, traffic, seen, draw).come(queue))
            for _ in range(traffic.visitors)
        ]
        try:
            while not all(task.done() for task in visitors):
                busy = disturb(min(seen.cells / traffic.cells, 1.0))
                seen.over = seen.cells >= traffic.cells and not busy
                await asyncio.sleep(0.2)
        finally:
            for task in visitors:
                task.cancel()
            ended = await asyncio.gather(*visitors, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each
    return seen


def _forever(visits: list[Visit]) -> Iterator[Visit]:
    while True:
        yield from visits


class _Visitor:
    """One visit after the other."""

    def __init__(
        self,
        settings: Settings,
        client: aiohttp.ClientSession,
        traffic: Traffic,
        seen: Seen,
        draw: random.Random,
    ) -> None:
        self._api, self._client = settings.api, client
        self._traffic, self._seen, self._draw = traffic, seen, draw
        self._late: set[asyncio.Task[None]] = set()

    async def come(self, visits: Iterator[Visit]) -> None:
        while not self._seen.over:
            await self._visit(next(visits)[:STEPS])
        await asyncio.gather(*self._late)

    async def _visit(self, visit: Visit) -> None:
        session = f"truth-{uuid4().hex[:12]}"
        listed: dict[str, str] = {}
        for number, told in enumerate(visit):
            event = self._now(session, number, told, listed)
            carried = await self._happen(event)
            answer = await self._ask(session, [event] if carried else [])
            listed |= dict.fromkeys((i["item_id"] for i in answer["items"]), answer["request_id"])
            if self._seen.over:
                return
            await asyncio.sleep(self._draw.expovariate(1 / self._traffic.pause))

    def _now(
        self, session: str, number: int, told: dict[str, Any], listed: dict[str, str]
    ) -> dict[str, Any]:
        event = {**told, "session_id": session, "event_id": f"{session}-{number}", "time": _ms()}
        request = listed.get(told.get("item_id", ""))
        return event if request is None else {**event, "request_id": request}

    async def _happen(self, event: dict[str, Any]) -> bool:
        """Send the event, now or later, once or twice; whether the question has to carry it."""
        chance = self._draw.random()
        if chance < LATE_SHARE:
            self._seen.late += 1
            self._later(self._aged(event))
        elif chance < LATE_SHARE + CARRIED_SHARE:
            self._seen.carried += 1
            self._later(event)
            return True
        else:
            await self._send(event)
        if self._draw.random() < REPEATED_SHARE:
            self._seen.repeated += 1
            self._later(event)
        return False

    def _aged(self, event: dict[str, Any]) -> dict[str, Any]:
        if self._draw.random() < 2 / 3:
            return event
        return {**event, "time": event["time"] - self._draw.randint(*VERY_LATE_MS)}

    def _later(self, event: dict[str, Any]) -> None:
        async def send() -> None:
            await asyncio.sleep(self._draw.uniform(*LATE_SECONDS))
            await self._send(event)

        task = asyncio.create_task(send())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _send(self, event: dict[str, Any]) -> None:
        await self._post("/v1/events", [event], 202)
        self._seen.events += 1

    async def _ask(self, session: str, events: list[dict[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = {"session_id": session, "k": self._traffic.k, "events": events}
        if self._draw.random() < EXCLUDING_SHARE:
            body["exclude"] = [str(self._draw.randrange(10_000)) for _ in range(3)]
            body["context"] = {"device": "tablet"}
        answer = await self._post("/v1/recommend", body, 200)
        seen, ranked = self._seen, "ranking" not in answer["degraded"]
        seen.answers += 1
        seen.unranked += not ranked
        seen.cells += len(answer["items"]) * self._traffic.columns * ranked
        seen.degraded.update(answer["degraded"] or ["nothing"])
        seen.releases[str(answer["release"])] += 1
        return answer

    async def _post(self, route: str, body: object, good: int) -> dict[str, Any]:
        """The answer; the same call again while the stack cannot take it."""
        end = time.monotonic() + PATIENCE_SECONDS
        why = ""
        while time.monotonic() < end:
            try:
                async with self._client.post(
                    f"{self._api}{route}", data=json.dumps(body)
                ) as response:
                    if response.status == good:
                        answer: dict[str, Any] = await response.json()
                        return answer
                    why = f"status {response.status}: {(await response.text())[:200]}"
                    if response.status < 500:
                        break
                    self._seen.retries[f"{route} {response.status}"] += 1
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = type(error).__name__
                self._seen.retries[f"{route} {why}"] += 1
            await asyncio.sleep(0.5)
        raise ServiceError(f"{self._api}{route} does not answer as it should: {why}")


def _ms() -> int:
    return time.time_ns() // 1_000_000
