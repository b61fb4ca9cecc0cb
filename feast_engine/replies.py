"""Replies of Redis taken from a connection as the bytes that they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import redis

from feast_engine.compiled import MORE, REFUSED, WHOLE, scan
from feast_engine.decode import Table

CHUNK = 1 << 16
"""Bytes asked for at a time."""
_CELL = 16
"""Bytes of a cell with what stands around it, for a first guess; the buffer grows."""


class Incoming:
    """Array replies of a connection: `expect` some, give it bytes while they are not `complete`, and
    take the `table`. Bytes of later replies are kept for these."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)
        self._place = self._end = self._done = 0
        self._starts = self._sizes = np.empty((0, 1), np.int64)

    def expect(self, rows: int, fields: int) -> None:
        """Next come so many arrays of so many bulk strings."""
        self._starts = np.empty((rows, fields), np.int64)
        self._sizes = np.empty((rows, fields), np.int64)
        self._done = 0
        # a new buffer: tables keep the one they lie in
        left = self._buffer[self._place : self._end]
        self._buffer = np.empty(len(left) + _CELL * rows * fields + CHUNK, np.uint8)
        self._buffer[: len(left)] = left
        self._place, self._end = 0, len(left)

    def room(self) -> memoryview:
        """Where bytes go that come next; say `received` how many came."""
        self._grow(CHUNK // 4)
        return self._buffer[self._end :].data

    def received(self, count: int) -> None:
        """redis.ConnectionError where the server has closed the connection."""
        if not count:
            raise redis.ConnectionError("the server closed the connection")
        self._end += count

    def feed(self, data: bytes) -> None:
        """The same of bytes that lie elsewhere."""
        self._grow(len(data))
        self._buffer[self._end : self._end + len(data)] = np.frombuffer(data, np.uint8)
        self.received(len(data))

    def complete(self, error_of: Callable[[str], Exception]) -> bool:
        """Whether all replies are there. Raises the error that one of them is, and
        redis.InvalidResponse where something else comes than what is expected."""
        found = scan(
            self._buffer, self._place, self._end, self._done, self._starts.shape[1],
            self._starts, self._sizes,
        )  # fmt: skip
        self._done, self._place, said = found
        if said in (MORE, WHOLE):
            return said == WHOLE
        line, ended, _ = self._buffer[self._place : self._end].tobytes().partition(b"\r\n")
        if said != REFUSED:
            raise redis.InvalidResponse(
                f"expected arrays of {self._starts.shape[1]} strings, got {line[:80]!r}"
            )
        if ended:
            raise error_of(line[1:].decode(errors="replace"))
        return False

    def table(self) -> Table:
        return Table(self._buffer[: self._end], self._starts, self._sizes)

    def check_ended(self) -> None:
        """redis.InvalidResponse where bytes are left that nobody expects."""
        if self._place < self._end:
            raise redis.InvalidResponse(f"{self._end - self._place} bytes after the last reply")

    def _grow(self, room: int) -> None:
        if len(self._buffer) - self._end < room:
            larger = np.empty(2 * len(self._buffer) + room, np.uint8)
            larger[: self._end] = self._buffer[: self._end]
            self._buffer = larger
