"""`python -m spark_jobs stream`: cycles of the stream until it is stopped, and its page.

The page: /readyz answers 200 while the stream gets on, with facts as JSON; /metrics tells
Prometheus. A cycle that fails is tried again; a process that fails too often ends, for whoever
supervises it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from contracts.errors import NextclickError, ServiceError
from contracts.settings import Settings
from feast_engine.connection import connect
from feast_engine.writer import OnlineWriter
from spark_jobs.jobs import first_words
from spark_jobs.stream import SETTLE_MS, TrendStream, Work, stream_session

FAILURES = 5
"""Cycles in a row that may fail."""
STALLED_SECONDS = 300.0
"""Without any progress for so long, the stream does not get on."""
GAUGES = {
    "cycles": "Looks into Kafka.",
    "messages": "Messages read from Kafka.",
    "rows": "Rows written to the online store.",
    "seconds": "Duration of the last cycle, seconds.",
    "drain_seconds": "Of it, reading what Kafka held.",
    "behind_seconds": "From the last moment of which rows are written to now.",
}
_log = logging.getLogger(__name__)


class Page:
    """The health and metrics page, from the first moment on."""

    def __init__(self, host: str, port: int) -> None:
        self.work: Work | None = None
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:  # the library's name
                status, kind, body = page.answer(self.path)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """A probe every two seconds is no news."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, type and body of a GET."""
        facts = self.facts()
        if path == "/livez":
            return 200, "text/plain", b"alive\n"
        if path == "/readyz":
            return 200 if facts["ready"] else 503, "application/json", json.dumps(facts).encode()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", _metrics(facts).encode()
        return 404, "text/plain", b"there are /readyz, /livez and /metrics\n"

    def facts(self) -> dict[str, Any]:
        work = self.work
        if work is None:
            return {"ready": False, "stage": "starting", **dict.fromkeys(GAUGES, 0)}
        idle = time.monotonic() - work.alive
        stage = "running" if idle < STALLED_SECONDS else f"no progress for {idle:.0f} s"
        counts = {name: round(value, 3) for name, value in asdict(work).items() if name in GAUGES}
        behind = max(0.0, time.time() - work.told / 1000)
        return {"ready": idle < STALLED_SECONDS, "stage": stage, **counts,
                "behind_seconds": round(behind, 1)}  # fmt: skip


def _metrics(facts: dict[str, Any]) -> str:
    lines = []
    for name, meaning in GAUGES.items():
        full = f"nextclick_stream_{name}"
        lines += [f"# HELP {full} {meaning}", f"# TYPE {full} gauge", f"{full} {facts[name]}"]
    return "\n".join(lines) + "\n"


def run_stream(settings: Settings, once: bool = False) -> dict[str, Any]:
    """Cycles until SIGTERM (`once`: one); what was done. ServiceError where it does not get on."""
    with contextlib.ExitStack() as opened:
        page = None if once else Page(settings.host, settings.stream_port)
        if page is not None:
            opened.callback(page.close)
        spark = stream_session(settings)
        opened.callback(spark.stop)
        client = opened.enter_context(contextlib.closing(connect(settings)))
        try:
            stream = TrendStream(spark, settings, OnlineWriter(settings, client))
            if page is None:
                stream.cycle()
            else:
                page.work = stream.work
                _cycles(stream, settings)
        except (PySparkException, Py4JError, OSError) as error:
            raise ServiceError(f"the stream failed: {first_words(error)}") from error
    return {**asdict(stream.work), "progress": asdict(stream.progress)}


def _cycles(stream: TrendStream, settings: Settings) -> None:
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        stream.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    failed = 0
    while not stopped.is_set():
        try:
            stream.cycle()
            failed = 0
        except Py4JNetworkError:  # the JVM is gone
            raise
        except (PySparkException, Py4JError, NextclickError, OSError) as error:
            failed += 1
            if failed >= FAILURES:
                raise
            _log.warning("cycle failed, is tried again: %s", first_words(error))
        stopped.wait(seconds_to_next(settings, failed))


def seconds_to_next(settings: Settings, failed: int) -> float:
    """Seconds to the next cycle. They begin at multiples of the setting, `SETTLE` late: so one
    begins just when five minutes have become complete."""
    if failed:
        return float(min(30.0, 2.0**failed))
    since = (time.time() - SETTLE_MS / 1000) % settings.stream_seconds
    return float(settings.stream_seconds - since)
