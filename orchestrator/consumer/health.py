"""The consumer's health page: /livez, /readyz and /metrics, served by a thread of its own."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from contracts.errors import ServiceError

POLL_LIMIT = 10.0
"""Seconds without a poll after which the loop counts as stuck."""

_log = logging.getLogger(__name__)


@dataclass
class Health:
    """What the loop tells of itself. Written by the loop, read by the page."""

    joined: bool = False
    partitions: int = 0
    redis: bool = False
    trouble: str = ""
    lag: int = 0
    waiting_for_lake: int = 0
    last_poll: float = field(default_factory=time.monotonic)

    def ready(self) -> bool:
        """A spare member of the group, without partitions, is ready too."""
        return self.joined and self.redis and not self.trouble and self.since_poll() < POLL_LIMIT

    def since_poll(self) -> float:
        return time.monotonic() - self.last_poll

    def as_dict(self) -> dict[str, object]:
        facts = asdict(self)
        del facts["last_poll"]
        return {"ready": self.ready(), **facts, "seconds_since_poll": round(self.since_poll(), 3)}


class Metrics:
    """Counters of the consumer, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.consumed = self._counter("messages", "Messages taken from Kafka.", "topic")
        self.refused = self._counter("refused", "Messages that became dead letters.", "reason")
        self.lake_rows = self._counter("lake_rows", "Rows written to the lake.", "table")
        self.online_writes = self._counter("online_writes", "Session states written online.")
        self.retries = self._counter("retries", "Steps that failed and were tried again.")
        self.lag = Gauge(
            "nextclick_consumer_lag", "Messages not taken yet.", registry=self.registry
        )
        self.batch_seconds = Histogram(
            "nextclick_consumer_batch_seconds",
            "From a batch's poll until it is visible online.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"nextclick_consumer_{name}", meaning, labels, registry=self.registry)


def serve(host: str, port: int, health: Health, metrics: Metrics) -> ThreadingHTTPServer:
    """Start the page; `shutdown()` ends it. ServiceError when the port is taken."""

    class Page(BaseHTTPRequestHandler):
        timeout = 5.0  # of a client that connects and says nothing

        def do_GET(self) -> None:  # the name http.server calls
            status, kind, body = _answer(self.path, health, metrics)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            _log.debug(format, *args)

    try:
        server = ThreadingHTTPServer((host, port), Page)
    except OSError as error:
        raise ServiceError(
            f"the consumer's page cannot be served on {host}:{port} ({error}): free that port or "
            "set NEXTCLICK_CONSUMER_PORT to another one"
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health-page", daemon=True).start()
    return server


def _answer(path: str, health: Health, metrics: Metrics) -> tuple[int, str, bytes]:
    if path == "/livez":
        alive = health.since_poll() < 6 * POLL_LIMIT
        return (200 if alive else 503), "text/plain", b"alive\n" if alive else b"stuck\n"
    if path == "/readyz":
        body = json.dumps(health.as_dict()).encode()
        return (200 if health.ready() else 503), "application/json", body
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4", generate_latest(metrics.registry)
    return 404, "text/plain", b"there are /livez, /readyz and /metrics\n"
