"""`freshness`: how soon an event that was answered 202 is known to the next recommendation.

Events come in an open loop (see `benchmarks.load`) in calls of `--batch`, as the page of a shop
sends what a visitor did since the last call. Of some calls the client asks for a recommendation at
once when it has the 202, and again every few milliseconds whether or not the earlier questions are
answered, until an answer knows all events of the visit (`session.events`). A sample is the time
from the 202 to the *start* of the earliest such question: 0 means that no visitor could have asked
too early. The events are page views without items: they change no item's figures.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import click

from benchmarks import NAMES, cpu, result
from benchmarks.load import LATE_MS, no_long_collections, open_client, percentile
from contracts.errors import ServiceError
from contracts.settings import Settings

VISITORS = 500
"""Visits under way at a time; each call is the next one's in turn."""
VISIT_CALLS = 5
"""After so many calls a visitor begins another visit: a visit remembers 100 events."""
ASK_SECONDS = 0.02
FINE_SECONDS = 0.1
"""Questions about one call come every `ASK_SECONDS` for so long, then ever more seldom: else it
would be they under which a slow stack breaks down."""
GIVE_UP_SECONDS = 10.0


@dataclass(frozen=True)
class Load:
    """`rate`: events a second; `batch`: events a call; `samples`: calls a second asked after."""

    rate: float
    seconds: float
    batch: int
    samples: float

    @property
    def calls(self) -> int:
        return round(self.rate * self.seconds / self.batch)

    def is_sampled(self, call: int) -> bool:
        every = max(1.0, self.rate / self.batch / self.samples)
        return call % every < 1


@dataclass
class Found:
    """Milliseconds; `fresh` from the 202, `visible` from the moment the call was due."""

    events: int = 0
    calls: int = 0
    questions: int = 0
    unseen: int = 0  # samples that no answer knew in time
    fresh: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)


@click.command("freshness", help=__doc__, short_help=NAMES["freshness"])
@click.option("--rate", default=500.0, show_default=True, type=click.FloatRange(1, 1_000_000), help="Events a second.")  # fmt: skip
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(0.5, 3600))
@click.option("--warmup", default=3.0, show_default=True, type=click.FloatRange(0, 600), help="Seconds before.")  # fmt: skip
@click.option("--batch", default=5, show_default=True, type=click.IntRange(1, 20), help="Events a call.")  # fmt: skip
@click.option("--samples", default=5.0, show_default=True, type=click.FloatRange(0.1, 1000), help="Calls a second that are asked after.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    rate: float, seconds: float, warmup: float, batch: int, samples: float, as_json: bool
) -> None:
    settings = Settings.from_environment()
    document = measure(settings, Load(rate, seconds, batch, samples), warmup)
    path = result.save("freshness", document)
    document = {**document, "samples": len(document["samples"]["fresh_ms"]), "raw": str(path)}
    print(json.dumps(document) if as_json else text(document))


def measure(settings: Settings, load: Load, warmup: float) -> dict[str, Any]:
    """The result document, raw values under `samples`. ServiceError without a stack."""
    from local_stack.stack import status

    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = result.conditions(settings, status(settings))
    with no_long_collections():
        found, used = asyncio.run(_run(settings, load, warmup))
    if not found.fresh:
        raise ServiceError(
            f"no event became known to {settings.api}/v1/recommend ({dict(found.errors)}): "
            "start the stack with ./nextclick up"
        )
    return {
        "benchmark": "freshness",
        "started": now,
        "conditions": where,
        "load": {**vars(load), "warmup": warmup, "visitors": VISITORS},
        **summary(found),
        "cpu_percent": {name: round(100 * s / load.seconds, 1) for name, s in used.items()},
        "samples": {
            "fresh_ms": _rounded(found.fresh),
            "visible_ms": _rounded(found.visible),
            "accepted_ms": _rounded(found.accepted),
        },
    }


def summary(found: Found) -> dict[str, Any]:
    late = percentile(found.lateness, 0.99)
    return {
        "events": found.events,
        "p50_ms": round(percentile(found.fresh, 0.5), 1),
        "p99_ms": round(percentile(found.fresh, 0.99), 1),
        "max_ms": round(max(found.fresh, default=0.0), 1),
        "unseen": found.unseen,
        "sent_to_visible_ms": _figures(found.visible),
        "accepted_ms": _figures(found.accepted),
        "calls": found.calls,
        "questions": found.questions,
        "errors": dict(found.errors),
        "degraded": dict(found.degraded),
        "lateness_p99_ms": round(late, 1),
        "generator_late": late > LATE_MS,
    }


def text(document: dict[str, Any]) -> str:
    """The result for a person."""
    load, where = document["load"], document["conditions"]
    accepted, visible = document["accepted_ms"], document["sent_to_visible_ms"]
    shares = ", ".join(f"{name} {share:g}" for name, share in document["cpu_percent"].items())
    late = "; GENERATOR LATE" if document["generator_late"] else ""
    return "\n".join(
        [
            f"{where['cpu']}, {where['cores']} cores; {document['events']:,} events at"
            f" {load['rate']:g}/s in calls of {load['batch']}, {document['samples']} asked after",
            f"from 202 to known:  p50 {document['p50_ms']:g}  p99 {document['p99_ms']:g}"
            f"  max {document['max_ms']:g} ms; {document['unseen']} never",
            f"from sent to 202:   p50 {accepted['p50']:g}  p99 {accepted['p99']:g} ms{late}",
            f"from sent to known: p50 {visible['p50']:g}  p99 {visible['p99']:g} ms",
            f"errors: {document['errors'] or 'none'}",
            f"percent of a core: {shares}",
            f"raw: {document['raw']}",
        ]
    )


def _figures(values: list[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(values, share), 1) for name, share in shares.items()}


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 2) for value in values]


# --- the load ----------------------------------------------------------------------------------


async def _run(settings: Settings, load: Load, warmup: float) -> tuple[Found, dict[str, float]]:
    async with open_client() as client:
        if warmup:
            before = Load(load.rate, warmup, load.batch, load.samples)
            await Shop(settings, client, before).open()
        looked = cpu.look(settings)
        found = await Shop(settings, client, load).open()
        return found, cpu.spent(looked, cpu.look(settings))


class Shop:
    """Visitors who send events, and the client that asks whether they are known."""

    def __init__(self, settings: Settings, client: aiohttp.ClientSession, load: Load) -> None:
        self._client, self._load = client, load
        self._events_url = f"{settings.api}/v1/events"
        self._recommend_url = f"{settings.api}/v1/recommend"
        self._name = f"benchmark-{uuid.uuid4().hex[:8]}"
        self._told: Counter[str] = Counter()  # events of a visit that were answered 202
        self._found = Found()

    async def open(self) -> Found:
        loop = asyncio.get_running_loop()
        start, tasks = loop.time() + 0.05, []
        for call in range(self._load.calls):
            due = start + call * self._load.batch / self._load.rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._found.lateness.append((loop.time() - due) * 1000)
            tasks.append(loop.create_task(self._visit(call, due)))
        await asyncio.gather(*tasks)
        return self._found

    async def _visit(self, call: int, due: float) -> None:
        """One call of a visitor, and the questions after it if it is sampled."""
        found, loop = self._found, asyncio.get_running_loop()
        session = f"{self._name}-{call % VISITORS}-{call // VISITORS // VISIT_CALLS}"
        status = await self._send(session, call)
        if status != "202":
            found.errors[status] += 1
            return
        accepted = loop.time()
        self._told[session] += self._load.batch
        found.calls += 1
        found.events += self._load.batch
        found.accepted.append((accepted - due) * 1000)
        if self._load.is_sampled(call):
            known = await self._first_that_knows(session, self._told[session], accepted)
            if known is None:
                found.unseen += 1
            else:
                found.fresh.append(max(0.0, known - accepted) * 1000)
                found.visible.append((known - due) * 1000)

    async def _send(self, session: str, call: int) -> str:
        """The status, or the name of an error."""
        events = [
            {"session_id": session, "type": "page_view", "event_id": f"{self._name}-{call}-{n}"}
            for n in range(self._load.batch)
        ]
        try:
            async with self._client.post(self._events_url, json=events) as answer:
                await answer.read()
                return str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    async def _first_that_knows(self, session: str, events: int, since: float) -> float | None:
        """When the earliest question was asked whose answer knew so many events."""
        loop = asyncio.get_running_loop()
        asked: list[asyncio.Task[float | None]] = []
        while (passed := loop.time() - since) < GIVE_UP_SECONDS:
            asked.append(loop.create_task(self._ask(session, events)))
            await asyncio.sleep(ASK_SECONDS if passed < FINE_SECONDS else passed / 3)
            if any(task.done() and task.result() is not None for task in asked):
                break
        starts = [start for start in await asyncio.gather(*asked) if start is not None]
        return min(starts, default=None)

    async def _ask(self, session: str, events: int) -> float | None:
        """When this question was asked, if its answer knows so many events."""
        start = asyncio.get_running_loop().time()
        self._found.questions += 1
        try:
            question = {"session_id": session, "k": 1}
            async with self._client.post(self._recommend_url, json=question) as answer:
                told = await answer.json()
                known = told["session"]["events"]
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as error:
            self._found.errors[type(error).__name__] += 1
            return None
        self._found.degraded.update(told["degraded"])
        return start if known >= events else None
