"""`faults`: what is lost and what is counted twice while everything is killed again and again.

Events go through Kafka in bursts, sent until the broker has acknowledged them, while the consumer,
Redis and the broker are killed by SIGKILL at random moments. Redis also loses what its append-only
file holds behind the last write that it had confirmed, as in a power cut. In the end every message
must stand in the files of the lake once, and every session's online state must be the fold of its
messages. All servers are this benchmark's own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any

import click

from benchmarks import NAMES, result
from benchmarks.breaking import ConsumerProcess, await_back, kill_broker, kill_redis
from benchmarks.private import private_stack, say
from benchmarks.traffic import shop_events
from benchmarks.truth import compare, topic_messages
from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Event, Topic
from contracts.settings import Settings

BURST_SECONDS, BURST_EVENTS = 1.0, 1200
"""Between bursts at least, and in a burst: the consumer finds nothing more and begins a store."""
SECONDS_PER_KILL = 5.0
"""The consumer needs about half of it to start."""
STORE_SECONDS = 3.0
"""Every second kill waits so long for a store to be under way."""
ACKNOWLEDGED_SECONDS = 300.0


@dataclass
class Broken:
    """What was broken: `under_way`: kills that hit a store, `cut`: bytes that Redis forgot."""

    kills: int = 0
    redis_kills: int = 0
    broker_kills: int = 0
    under_way: int = 0
    cut: list[int] = field(default_factory=list)


@click.command("faults", help=__doc__, short_help=NAMES["faults"])
@click.option("--events", default=200_000, show_default=True, type=click.IntRange(1000))
@click.option("--kills", default=20, show_default=True, type=click.IntRange(0, 1000))
@click.option("--redis-kills", default=2, show_default=True, type=click.IntRange(0, 100))
@click.option("--broker-kills", default=1, show_default=True, type=click.IntRange(0, 100))
@click.option("--seed", default=7, show_default=True, help="Of the traffic and of the moments.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    events: int, kills: int, redis_kills: int, broker_kills: int, seed: int, as_json: bool
) -> None:  # fmt: skip
    document = measure(events, kills, redis_kills, broker_kills, seed)
    document["raw"] = str(result.save("faults", document))
    print(json.dumps(document) if as_json else text(document))
    if not document["right"]:
        raise ServiceError("events were lost or counted twice: see the figures")


def measure(
    events: int, kills: int, redis_kills: int, broker_kills: int, seed: int = 7
) -> dict[str, Any]:
    """The result document. ServiceError when something does not come to an end in time."""
    began = time.monotonic()
    with private_stack(("redis", "kafka")) as settings:
        from local_stack.lag import wait_until_consumed
        from orchestrator.kafka_topics import ensure_topics

        ensure_topics(settings)
        where = result.conditions(settings)
        now = int(time.time() * 1000)
        consumer = ConsumerProcess(settings)
        consumer.start()
        try:
            sender = _Sender(settings)
            plan = _Plan(settings, consumer, kills, redis_kills, broker_kills, seed)
            _send_while_breaking(list(shop_events(events, now, seed)), sender, plan)
            sender.await_all()
            wait_until_consumed(settings, lambda _what, _done, _of: None)
            consumer.stop()
            messages = topic_messages(settings, Topic.events)
            found = compare(settings, messages, now)
            acknowledged_lost = sum(place not in messages for place in sender.places)
        finally:
            with suppress(ServiceError):
                consumer.stop()
    return {
        "benchmark": "faults",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "sent": events,
        **vars(plan.broken),
        **vars(found),
        "lost": found.lost + acknowledged_lost,
        "sent_again": sender.again,
        "right": found.right and not acknowledged_lost,
        "seconds": round(time.monotonic() - began, 1),
    }


class _Sender:
    """Sends each event until the broker has acknowledged it."""

    def __init__(self, settings: Settings) -> None:
        from orchestrator.kafka_log import KafkaLog

        self._log = KafkaLog(settings, patience=ACKNOWLEDGED_SECONDS)
        self._under_way: list[tuple[Event, Future[tuple[int, int]]]] = []
        self.places: set[tuple[int, int]] = set()  # partition and offset of what was acknowledged
        self.again = 0

    def send(self, event: Event) -> None:
        future = self._log.send(Topic.events, event.session_id, event.to_json())
        self._under_way.append((event, future))

    def settle(self) -> None:
        """Note what was acknowledged, send again what failed."""
        waiting, self._under_way = self._under_way, []
        for event, future in waiting:
            if not future.done():
                self._under_way.append((event, future))
            elif future.exception() is None:
                self.places.add(future.result())
            else:
                self.again += 1
                self.send(event)

    def await_all(self) -> None:
        deadline = Deadline(ACKNOWLEDGED_SECONDS)
        while self._under_way:
            if deadline.expired():
                raise ServiceError(f"{len(self._under_way)} events were never acknowledged")
            with suppress(ServiceError):
                self._log.flush(1.0)
            self.settle()
        self._log.close()


class _Plan:
    """Which fault comes when: moments drawn evenly over the whole run."""

    def __init__(
        self,
        settings: Settings,
        consumer: ConsumerProcess,
        kills: int,
        redis_kills: int,
        broker_kills: int,
        seed: int,
    ) -> None:
        self._settings, self._consumer = settings, consumer
        self.seconds = SECONDS_PER_KILL * (kills + 1)
        self.broken = Broken()
        draw = Random(seed)  # noqa: S311  # moments, no secret
        faults: list[Callable[[], None]] = [self._kill_consumer] * kills
        faults += [self._kill_redis] * redis_kills + [self._kill_broker] * broker_kills
        moments = sorted(draw.uniform(0, self.seconds) for _ in faults)
        draw.shuffle(faults)
        self._faults: Iterator[tuple[float, Callable[[], None]]] = iter(
            list(zip(moments, faults, strict=True))
        )
        self._next = next(self._faults, None)

    def break_until(self, second: float) -> None:
        """Do all that is due by this second of the run."""
        while self._next is not None and self._next[0] <= second:
            self._next[1]()
            self._next = next(self._faults, None)

    def _kill_consumer(self) -> None:
        patience = STORE_SECONDS if self.broken.kills % 2 else 0.0
        self.broken.under_way += self._consumer.kill(patience)
        self.broken.kills += 1
        say(f"consumer killed ({self.broken.kills}), a store under way: {self.broken.under_way}")

    def _kill_redis(self) -> None:
        if self.broken.redis_kills:
            await_back(self._settings, "redis")
        self.broken.cut.append(kill_redis(self._settings))
        self.broken.redis_kills += 1
        say(f"redis killed, {self.broken.cut[-1]} bytes forgotten")

    def _kill_broker(self) -> None:
        if self.broken.broker_kills:
            await_back(self._settings, "kafka")
        kill_broker(self._settings)
        self.broken.broker_kills += 1
        say("broker killed")


def _send_while_breaking(events: Sequence[Event], sender: _Sender, plan: _Plan) -> None:
    """Bursts evenly over the plan's seconds; a burst that was held up shifts all that follow."""
    bursts = max(1, min(int(plan.seconds / BURST_SECONDS), len(events) // BURST_EVENTS))
    size, pause = -(-len(events) // bursts), plan.seconds / bursts
    left = iter(events)
    for number in range(bursts):
        began = time.monotonic()
        for event in islice(left, size):
            sender.send(event)
        sender.settle()
        while (spent := time.monotonic() - began) < pause:
            plan.break_until(number * pause + spent)
            time.sleep(0.01)
    plan.break_until(plan.seconds)


def text(document: dict[str, Any]) -> str:
    """The result for a person."""
    where, cut = document["conditions"], sum(document["cut"])
    return "\n".join(
        [
            f"{where['cpu']}, {where['cores']} cores, {document['seconds']:g} s",
            f"{document['sent']:,} events sent ({document['sent_again']} again);"
            f" consumer killed {document['kills']} times ({document['under_way']} within a store),"
            f" Redis {document['redis_kills']} times ({cut:,} bytes forgotten),"
            f" the broker {document['broker_kills']} times",
            f"lake: {document['messages']:,} messages, {document['lake_rows']:,} rows:"
            f" {document['lost']} lost, {document['twice']} twice",
            f"online: {document['sessions']:,} sessions,"
            f" {document['states_differing']} other than the fold of their messages",
            f"raw: {document['raw']}",
        ]
    )
