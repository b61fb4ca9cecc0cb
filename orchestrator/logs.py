"""Structured logs: one JSON object a line on stderr; and a brake for what would repeat."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

LOGGER = logging.getLogger("nextclick.api")
QUIET_SECONDS = 10.0
"""A failure of the same kind is logged again after this time, with the number left out."""


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send the API's own log to stderr, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = _JsonLine()
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False


class Occasionally:
    """Warns of failures, each kind at most once in `QUIET_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, error: BaseException, **fields: object) -> None:
        """`kind` comes from a fixed set of names, so the memory is bounded."""
        now = self._clock()
        if now < self._next.get(kind, 0.0):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next[kind] = now + QUIET_SECONDS
        text = f"{kind} failed: {type(error).__name__}: {error}"
        more = {"left_out": self._left_out.pop(kind, 0), **fields}
        LOGGER.warning(text[:2000], extra={"fields": more})
