"""`stream`: trends by Spark Structured Streaming, beside a broker and a Redis of its own.

An hour of events lies in Kafka when the stream starts: it reads and counts them, then it idles. At
last a single view is sent whose five minutes become complete soon, and is looked for online.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import click
import psutil

from benchmarks import NAMES, result
from benchmarks.private import private_stack, say
from benchmarks.traffic import shop_events
from contracts.deadline import Deadline
from contracts.errors import ServiceError
from contracts.events import Event, Topic, topic_name
from contracts.settings import Settings

HOUR_MS = 3_600_000
QUIET_MS = 15 * 60_000
"""So long before now the hour ends: all of it is complete."""
LIMIT_SECONDS = 900.0
LOOK_SECONDS = 0.2
IDLE_CYCLES = 3
PROBE_ITEM = "benchmark-probe"


@click.command("stream", help=__doc__, short_help=NAMES["stream"])
@click.option(
    "--events", default=200_000, show_default=True, type=click.IntRange(100), help="Of the hour."
)
@click.option("--delay/--no-delay", default=True, help="Wait for the single view, up to 6 minutes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(events: int, delay: bool, as_json: bool) -> None:  # noqa: N802  # every benchmark's name
    document = measure(events, delay)
    document["raw"] = str(result.save("stream", document))
    print(json.dumps(document) if as_json else text(document))


def measure(events: int, delay: bool) -> dict[str, Any]:
    """The result document. ServiceError when the stream does not come to an end in time."""
    from local_stack import stack
    from orchestrator.kafka_topics import ensure_topics

    with private_stack(("redis", "kafka")) as settings:
        ensure_topics(settings)
        _fill(settings, events, int(time.time() * 1000) - QUIET_MS)
        say(f"{events} events are in Kafka")
        memory = Memory(settings)
        stack.up(settings, only=("stream",), report=say)
        first = _await(settings, memory, lambda page: page["messages"] >= events)
        say("read; now idle")
        idle = _idle(settings, memory)
        waited = _delay_seconds(settings, memory) if delay else None
        where = result.conditions(settings, stack.status(settings))
    return {
        "benchmark": "stream",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "events": first["messages"],
        "rows": first["rows"],
        "events_per_second": round(first["messages"] / first["drain_seconds"]),
        "drain_seconds": first["drain_seconds"],
        "count_and_tell_seconds": round(first["seconds"] - first["drain_seconds"], 2),
        "idle_cycle_seconds": idle,
        "delay_seconds": waited,
        "memory_mb": memory.peaks,
        "memory_setting": settings.stream_memory,
    }


class Memory:
    """Greatest resident memory of the service so far, MB: Java, Python, and both at one time. A
    page that several processes share (Python's workers are forks) counts once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.peaks = {"java": 0.0, "python": 0.0, "together": 0.0}

    def look(self) -> None:
        from local_stack.process import processes_of

        now = {"java": 0.0, "python": 0.0}
        for process in processes_of(self._settings.home, "stream"):
            try:
                kind = "java" if "java" in process.name() else "python"
                now[kind] += process.memory_full_info().pss / 2**20
            except psutil.Error:  # ended meanwhile
                continue
        now["together"] = sum(now.values())
        self.peaks = {name: round(max(value, now[name]), 1) for name, value in self.peaks.items()}


def _fill(settings: Settings, events: int, end_ms: int) -> None:
    """An hour of events that ends then, each known when it happened."""
    sender = Sender(settings)
    for event in shop_events(events, end_ms, step_ms=HOUR_MS / events):
        sender.send(event)
    sender.flush()


class Sender:
    """Sends events that bear their own time as the time of sending."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import Producer

        options = {"bootstrap.servers": settings.kafka, "linger.ms": 20, "compression.type": "zstd"}
        self._topic = topic_name(settings.topic_prefix, Topic.events)
        self._producer = Producer(options)

    def send(self, event: Event) -> None:
        body, key = event.to_json(), event.session_id.encode()
        while True:
            try:
                self._producer.produce(self._topic, body, key=key, timestamp=event.time)
            except BufferError:
                self._producer.poll(0.1)
                continue
            return

    def flush(self) -> None:
        if self._producer.flush(60):
            raise ServiceError("Kafka did not take all events within a minute")


def _await(settings: Settings, memory: Memory, reached: Any) -> dict[str, Any]:
    """The page's facts at the end of the first cycle after which they are as wanted."""
    from local_stack.service import http_json

    deadline = Deadline(LIMIT_SECONDS)
    while not deadline.expired():
        memory.look()
        page: dict[str, Any] = http_json(settings.host, settings.stream_port, "/readyz")
        if page["cycles"] and reached(page):
            return page
        time.sleep(LOOK_SECONDS)
    raise ServiceError(f"the stream did not get through in {LIMIT_SECONDS:g} s: {page}")


def _idle(settings: Settings, memory: Memory) -> list[float]:
    seconds = []
    for _ in range(IDLE_CYCLES):
        cycles = _await(settings, memory, lambda _: True)["cycles"]
        page = _await(settings, memory, lambda page, done=cycles: page["cycles"] > done)
        seconds.append(page["seconds"])
    return seconds


def _delay_seconds(settings: Settings, memory: Memory) -> float:
    """From the end of five minutes to their rows being online."""
    from contracts.known import LATENESS_MS
    from feast_engine.connection import connect
    from feast_engine.reader import ReadRequest, SyncReader
    from spark_jobs.buckets import STEP_MS
    from spark_jobs.stream import SETTLE_MS

    now = int(time.time() * 1000)
    # the next five minutes to become complete, not before the next cycle has read the view
    waited = LATENESS_MS + SETTLE_MS
    end = (now + 2000 * settings.stream_seconds - waited) // STEP_MS * STEP_MS + STEP_MS
    view = Event.model_validate(
        {"session_id": "probe", "type": "item_view", "time": end - 1000, "item_id": PROBE_ITEM}
    )
    sender = Sender(settings)
    sender.send(view)
    sender.flush()
    reader = SyncReader(settings, connect(settings))
    deadline = Deadline(LIMIT_SECONDS)
    while not deadline.expired():
        [found] = reader.read([ReadRequest("item_windows", [PROBE_ITEM])], None)
        if found.event_times_ms[0] == end:
            return round(time.time() - end / 1000, 2)
        memory.look()
        time.sleep(LOOK_SECONDS)
    raise ServiceError(f"the view was not online after {LIMIT_SECONDS:g} s")


def text(document: dict[str, Any]) -> str:
    """The result for people."""
    memory, delay = document["memory_mb"], document["delay_seconds"]
    return "\n".join(
        [
            f"read               {document['events_per_second']:>10,} events a second",
            f"counted and told   {document['count_and_tell_seconds']:>10} s for {document['rows']:,} rows online",
            f"idle cycle         {max(document['idle_cycle_seconds']):>10} s",
            f"window to online   {'not measured' if delay is None else f'{delay:>10} s'}",
            f"memory             {memory['together']:>10} MB (Java {memory['java']}, Python {memory['python']})",
        ]
    )
