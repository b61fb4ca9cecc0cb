"""`consume`: events a second from Kafka through the consumer into the online store and the lake.

A broker, a Redis and a consumer of its own, all on this machine. The topic is filled first; then
the consumer starts and is measured until nothing is left. Afterwards every row of the lake and
every session's online state is held against the fold of what was sent.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from benchmarks import NAMES, cpu, result
from benchmarks.private import private_stack, say
from benchmarks.traffic import shop_events
from benchmarks.truth import compare, topic_messages
from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Event, Topic
from contracts.settings import Settings

SECONDS_LIMIT = 600.0
LOOK_SECONDS = 0.1
FILLED_SECONDS = 300.0
TAIL_ROWS = 1000
"""So few rows may wait for others before they become a file (`orchestrator.consumer.buffer`)."""


@click.command("consume", help=__doc__, short_help=NAMES["consume"])
@click.option(
    "--events", default=300_000, show_default=True, type=click.IntRange(2000), help="To be sent."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(events: int, as_json: bool) -> None:  # noqa: N802  # the name that every benchmark has
    document = measure(events)
    document["raw"] = str(result.save("consume", document))
    print(json.dumps(document) if as_json else text(document))


def measure(events: int) -> dict[str, Any]:
    """The result document. ServiceError when the consumer does not come to an end in time."""
    from local_stack import stack

    with private_stack(("redis", "kafka")) as settings:
        now = int(time.time() * 1000)
        fill(settings, shop_events(events, now))
        say(f"{events} events are in Kafka")
        before = cpu.look(settings)
        began = time.monotonic()
        stack.up(settings, only=("consumer",), report=say)
        joined = time.monotonic()
        taken, waiting, seen = _await_all(settings, events)
        ended = time.monotonic()
        used = cpu.spent(before, cpu.look(settings))
        where = result.conditions(settings, stack.status(settings))
        stack.down(settings)  # what waits for others is stored at the end
        stack.up(settings, only=("redis", "kafka"), report=say)
        found = compare(settings, topic_messages(settings, Topic.events), now)
    committed = events - waiting
    steady = [point for point in seen if point[1] > 0]
    return {
        "benchmark": "consume",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "events": events,
        "taken": taken,
        "committed": committed,
        "seconds": round(ended - began, 2),
        "start_seconds": round(joined - began, 2),
        "events_per_second": round(_rate(steady, events)),
        "events_per_second_with_start": round(committed / (ended - began)),
        "cpu_us_per_event": {name: round(1e6 * s / events, 2) for name, s in used.items()},
        "cores": {name: round(s / (ended - began), 2) for name, s in used.items()},
        **vars(found),
        "right": found.right,
        "seen": seen,
    }


def _rate(steady: list[tuple[float, int]], events: int) -> float:
    """Events a second from the first look at which something was taken to the last."""
    if len(steady) < 2:
        return 0.0
    (first, taken), (last, _) = steady[0], steady[-1]
    return (events - taken) / (last - first)


def fill(settings: Settings, events: Iterable[Event]) -> None:
    """Send events, keyed by session, and wait until Kafka has them all."""
    from orchestrator.kafka_log import KafkaLog
    from orchestrator.kafka_topics import ensure_topics

    ensure_topics(settings)
    log = KafkaLog(settings, patience=FILLED_SECONDS)
    try:
        for event in events:
            log.send(Topic.events, event.session_id, event.to_json())
        log.flush(FILLED_SECONDS)
    finally:
        log.close()


def _await_all(settings: Settings, events: int) -> tuple[int, int, list[tuple[float, int]]]:
    """Messages taken, rows that still wait for the lake, and (seconds, messages taken) by and by."""
    deadline, seen = Deadline(SECONDS_LIMIT), []
    while True:
        taken, waiting = look(settings)
        seen.append((round(time.monotonic(), 3), taken))
        if taken >= events and waiting < TAIL_ROWS:
            return taken, waiting, seen
        if deadline.expired():
            raise ServiceError(f"{taken} of {events} events taken in {SECONDS_LIMIT:g} s")
        time.sleep(LOOK_SECONDS)


def look(settings: Settings) -> tuple[int, int]:
    """Messages that the running consumer has taken, and rows that wait for the lake."""
    url = f"http://{settings.host}:{settings.consumer_port}"
    metrics = _get(f"{url}/metrics")
    taken = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("nextclick_consumer_messages_total{")
    )
    return int(taken), int(json.loads(_get(f"{url}/readyz"))["waiting_for_lake"])


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own page
            content: bytes = answer.read()
    except OSError as error:
        raise ServiceError(f"the consumer's page {url} does not answer: {error}") from error
    return content.decode()


def text(document: dict[str, Any]) -> str:
    """The result for a person."""
    where = document["conditions"]
    spent = ", ".join(f"{name} {us:g}" for name, us in document["cpu_us_per_event"].items())
    return "\n".join(
        [
            f"{where['cpu']}, {where['cores']} cores",
            f"{document['events']:,} events: {document['events_per_second']:,} a second"
            f" ({document['events_per_second_with_start']:,} with the consumer's start)",
            f"microseconds of processor time an event: {spent}",
            f"lake: {document['lake_rows']:,} rows, {document['lost']} lost, {document['twice']} twice;"
            f" online: {document['sessions']:,} sessions, {document['states_differing']} differing",
            f"raw: {document['raw']}",
        ]
    )
