"""The load generator against a server whose delays are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from benchmarks.load import Samples, Target, open_client, open_loop, percentile

Delay = Callable[[int], float]


class Shop:
    """Answers request number n after `delay(n)` seconds; while it stalls nobody is answered."""

    def __init__(
        self, delay: Delay = lambda _: 0.0, stall: tuple[int, float] | None = None
    ) -> None:
        self.delay, self.stall = delay, stall
        self.bodies: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()

    async def recommend(self, request: web.Request) -> web.Response:
        number = len(self.bodies)
        self.bodies.append(await request.read())
        if self.stall and number == self.stall[0]:
            self.open.clear()
            await asyncio.sleep(self.stall[1])
            self.open.set()
        await self.open.wait()
        await asyncio.sleep(self.delay(number))
        if b"fail" in self.bodies[number]:
            return web.Response(status=503)
        degraded = ["ranker"] if b"poor" in self.bodies[number] else []
        return web.json_response({"items": [], "degraded": degraded})


@asynccontextmanager
async def running(shop: Shop) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/recommend", shop.recommend)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/recommend"
    finally:
        await runner.cleanup()


def load(shop: Shop, rate: float, seconds: float, bodies: list[bytes] | None = None) -> Samples:
    async def run() -> Samples:
        async with running(shop) as url, open_client() as client:
            return await open_loop(client, Target("shop", url, bodies or [b"{}"]), rate, seconds)

    return asyncio.run(run())


def test_percentiles_are_exact() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) != percentile([], 0.5)  # nan


def test_known_delays_give_known_percentiles() -> None:
    """Of 100 answers 80 take 20 ms, 15 take 100 ms, 5 take 300 ms; a busy machine only adds."""
    delays = [0.02] * 80 + [0.1] * 15 + [0.3] * 5
    samples = load(Shop(lambda number: delays[number]), rate=100, seconds=1)
    assert samples.answers == samples.due == 100
    for share, expected in ((0.5, 20), (0.9, 100), (0.99, 300)):
        assert percentile(samples.latency, share) >= expected - 1


def test_slow_answers_do_not_slow_the_load() -> None:
    """50 requests in half a second that take 0.4 s each: a closed loop would need 20 s."""
    samples = load(Shop(lambda _: 0.4), rate=100, seconds=0.5)
    assert samples.answers == 50
    assert 0.9 <= samples.seconds + 0.1 < 15


def test_a_stall_shows_in_every_request_that_was_due_in_it() -> None:
    """The server stands still for 1 s: 100 requests were due in it and waited 500 ms on average.

    A closed loop of one connection would have seen a single slow answer.
    """
    samples = load(Shop(stall=(10, 1.0)), rate=100, seconds=1.2)
    waited = sorted(latency for latency in samples.latency if latency > 50)
    assert len(waited) >= 80
    assert waited[-1] >= 900
    assert percentile(waited, 0.5) >= 400


def test_errors_and_poor_answers_are_counted_apart() -> None:
    bodies = [b"{}", b'{"a": "fail"}', b'{"a": "poor"}', b"{}"]
    shop = Shop()
    samples = load(shop, rate=100, seconds=0.4, bodies=bodies)
    assert sorted(shop.bodies) == sorted(bodies * 10)
    assert samples.errors == {"status 503": 10}
    assert (samples.answers, samples.degraded_answers) == (30, 10)
    assert samples.degraded == {"ranker": 10}


def test_no_server_is_an_error_for_each_request() -> None:
    async def run() -> Samples:
        async with running(Shop()) as url:
            pass  # it is down again
        async with open_client() as client:
            return await open_loop(client, Target("down", url), 50, 0.1)

    samples = asyncio.run(run())
    assert samples.answers == 0
    assert samples.errors == {"ClientConnectorError": 5}


def test_a_generator_that_is_late_says_so() -> None:
    class Busy(Shop):
        async def recommend(self, request: web.Request) -> web.Response:
            import time

            time.sleep(0.03)  # the generator lives on the same loop
            return await super().recommend(request)

    assert load(Busy(), rate=100, seconds=0.5).late
    assert not Samples(lateness=[1.0] * 99 + [50.0]).late


def test_samples_add_up() -> None:
    first, second = (load(Shop(), rate=50, seconds=0.2, bodies=[b'"poor"']) for _ in range(2))
    first.add(second)
    assert (first.due, first.answers, first.degraded_answers) == (20, 20, 20)
    assert len(first.lateness) == 20
    assert json.dumps(first.degraded) == '{"ranker": 20}'
