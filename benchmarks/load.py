"""An open-loop load: requests are sent when they are due, whether or not earlier ones are answered.

A closed loop waits for a slow server and so leaves out just the requests that would have had to
wait ("coordinated omission"). Here each latency counts from the moment the request was due, so a
stall of a second shows in all requests that fell into it. The generator's own lateness, from due
to sent, is counted in the latency and reported beside it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

CONNECTIONS = 256
"""Connections at most; requests beyond them wait, and the wait counts."""
TIMEOUT_SECONDS = 10.0
LATE_MS = 10.0
"""A generator that is later than this at p99 could not keep up: its figures say so."""


@dataclass(frozen=True)
class Target:
    """A route; a request takes the next one of `bodies`, in turn (none: GET)."""

    name: str
    url: str
    bodies: Sequence[bytes] = ()


@dataclass
class Samples:
    """What came of a load. Times in milliseconds, one an answer of status 200, in order of answering."""

    due: int = 0
    seconds: float = 0.0  # from the first request due to the last answer
    latency: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)  # one a request sent
    errors: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)  # reasons
    degraded_answers: int = 0

    def add(self, other: Samples) -> None:
        self.due += other.due
        self.seconds += other.seconds
        self.latency += other.latency
        self.lateness += other.lateness
        self.errors += other.errors
        self.degraded += other.degraded
        self.degraded_answers += other.degraded_answers

    @property
    def answers(self) -> int:
        return len(self.latency)

    @property
    def late(self) -> bool:
        return percentile(self.lateness, 0.99) > LATE_MS


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed; nan for none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def open_loop(
    client: aiohttp.ClientSession, target: Target, rate: float, seconds: float, first: int = 0
) -> Samples:
    """Send `rate` requests a second for `seconds`, evenly, beginning with the body `first`."""
    loop = asyncio.get_running_loop()
    samples = Samples(due=round(rate * seconds))
    start = loop.time() + 0.05
    sent = []
    for index in range(samples.due):
        due = start + index / rate
        # also when it is late: answers must be read in between
        await asyncio.sleep(max(0.0, due - loop.time()))
        samples.lateness.append((loop.time() - due) * 1000)
        sent.append(loop.create_task(_send(client, target, first + index, due, samples)))
    await asyncio.gather(*sent)
    samples.seconds = max(loop.time() - start, seconds)
    return samples


async def _send(
    client: aiohttp.ClientSession, target: Target, index: int, due: float, samples: Samples
) -> None:
    body = target.bodies[index % len(target.bodies)] if target.bodies else None
    loop = asyncio.get_running_loop()
    try:
        async with client.request("POST" if body else "GET", target.url, data=body) as response:
            text = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        samples.errors[type(error).__name__] += 1
        return
    latency = (loop.time() - due) * 1000
    if response.status != 200:
        samples.errors[f"status {response.status}"] += 1
        return
    samples.latency.append(latency)
    if body:
        _note_degraded(text, samples)


def _note_degraded(text: bytes, samples: Samples) -> None:
    reasons = json.loads(text).get("degraded", [])
    samples.degraded_answers += bool(reasons)
    samples.degraded.update(str(reason) for reason in reasons)


def open_client() -> aiohttp.ClientSession:
    """A client with pooled connections; use it in `async with`.

    aiohttp, because a request costs it .18 ms of CPU where httpx takes 1.4 ms (measured on one
    core against a bare asyncio server): on a small machine the generator must not be what is
    measured.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        headers={"content-type": "application/json"},
    )


@contextmanager
def no_long_collections() -> Iterator[None]:
    """A garbage collection over all that was imported would stop the generator for tens of
    milliseconds. Undone afterwards: DuckDB takes what is frozen at exit for leaks."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
