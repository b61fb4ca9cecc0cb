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
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
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
from local_stack.process import processes_of

SECONDS_LIMIT = 600.0
LOOK_SECONDS = 0.3
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
        began = time.monotonic()
        stack.up(settings, only=("consumer",), report=say)
        ready = time.monotonic()
        waiting, seen = _await_all(settings, events)
        ended = time.monotonic()
        where = result.conditions(settings, stack.status(settings))
        stack.down(settings)  # what waits for others is stored at the end
        stack.up(settings, only=("redis", "kafka"), report=say)
        found = compare(settings, topic_messages(settings, Topic.events), now)
    committed, first, last = events - waiting, seen[0], seen[-1]
    # of so few events that all were taken before the first look, there is no rate to tell
    seconds, steady = last.second - first.second or 1.0, events - first.taken
    used = cpu.spent(first.cpu, last.cpu)
    return {
        "benchmark": "consume",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "events": events,
        "committed": committed,
        "seconds": round(ended - began, 2),
        "start_seconds": round(ready - began, 2),
        "events_per_second": round(steady / seconds),
        "events_per_second_with_start": round(committed / (ended - began)),
        "cpu_us_per_event": {name: round(1e6 * s / max(1, steady), 2) for name, s in used.items()},
        "cores": {name: round(s / seconds, 2) for name, s in used.items()},
        "consumer_kept_waiting_for_a_core": round((last.delay - first.delay) / seconds, 2),
        **vars(found),
        "right": found.right,
        "seen": [(round(point.second - began, 2), point.taken) for point in seen],
    }


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


@dataclass(frozen=True)
class Seen:
    """A look at the consumer: messages taken so far, processor time by service, and seconds that
    the consumer's threads were able to run and had no core."""

    second: float
    taken: int
    cpu: cpu.Seen
    delay: float


def _await_all(settings: Settings, events: int) -> tuple[int, list[Seen]]:
    """Rows that still wait for the lake in the end, and looks from the first message taken on."""
    deadline, seen = Deadline(SECONDS_LIMIT), list[Seen]()
    while True:
        taken, waiting = look(settings)
        if taken > 0 or not seen:
            now = Seen(time.monotonic(), taken, cpu.look(settings), _delay(settings))
            seen = [now] if seen and not seen[-1].taken else [*seen, now]
        if taken >= events and waiting < TAIL_ROWS and len(seen) > 1:
            return waiting, seen
        if deadline.expired():
            raise ServiceError(f"{taken} of {events} events taken in {SECONDS_LIMIT:g} s")
        time.sleep(LOOK_SECONDS)


def _delay(settings: Settings) -> float:
    """Seconds that the kernel let the consumer's threads wait for a core; 0 where it does not say."""
    found = 0.0
    for process in processes_of(settings.home, "consumer"):
        for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                found += int(file.read_text().split()[1]) / 1e9
    return found


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
            f"microseconds of processor time an event: {spent}; of each second the consumer waited"
            f" {document['consumer_kept_waiting_for_a_core']:g} s for a core",
            f"lake: {document['lake_rows']:,} rows, {document['lost']} lost, {document['twice']} twice;"
            f" online: {document['sessions']:,} sessions, {document['states_differing']} differing",
            f"raw: {document['raw']}",
        ]
    )
