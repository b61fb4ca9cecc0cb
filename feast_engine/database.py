"""DuckDB with limits: memory, after which it spills to a folder of its own, threads and time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from contracts.errors import ServiceError, UsageError

MEMORY_SHARE = 4
"""Without a limit given, DuckDB takes this part of the machine's memory, and `LEAST_MEMORY`."""
LEAST_MEMORY = 1 << 30
STOP_SECONDS = 0.02


@dataclass(frozen=True)
class Limits:
    """`memory`: as DuckDB writes it, `4GB`; None: a quarter of the machine's. `folder`: where to
    spill; None: the system's temporary folder. `threads` None: one a core. `seconds`: of a call.
    """

    memory: str | None = None
    folder: Path | None = None
    threads: int | None = None
    seconds: float = 3600.0


@contextmanager
def open_database(limits: Limits) -> Iterator[Any]:
    """A DuckDB connection in memory; what it spilled is gone afterwards.

    UsageError for limits it does not take, ServiceError when the time is up, when memory and
    temporary folder are full, and for files that cannot be read.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="nextclick-spill-", dir=limits.folder) as folder:
        try:
            connection = duckdb.connect(config=_settings(limits, folder))
        except duckdb.Error as error:
            raise UsageError(f"offline_store: DuckDB does not take these limits: {error}") from None
        late, done = threading.Event(), threading.Event()
        watch = threading.Thread(target=_watch, args=(connection, limits.seconds, late, done))
        watch.daemon = True
        watch.start()
        try:
            yield connection
        except duckdb.InterruptException:
            if not late.is_set():
                raise
            raise ServiceError(
                f"the join took over {limits.seconds:g} s and was stopped: "
                "ask for fewer rows at once or raise offline_store.timeout_seconds"
            ) from None
        except duckdb.OutOfMemoryException as error:
            raise ServiceError(
                f"the join does not fit: raise offline_store.memory_limit or free the disk: {error}"
            ) from None
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise ServiceError(f"the join could not read or spill: {error}") from error
        finally:
            done.set()
            watch.join()
            connection.close()


def _watch(connection: Any, seconds: float, late: threading.Event, done: threading.Event) -> None:
    """When the time is up, stop what runs, again and again: between two queries nothing does."""
    if done.wait(seconds):
        return
    late.set()
    while not done.wait(STOP_SECONDS):
        connection.interrupt()


def _settings(limits: Limits, folder: str) -> dict[str, Any]:
    least = max(psutil.virtual_memory().total // MEMORY_SHARE, LEAST_MEMORY)
    settings: dict[str, Any] = {
        "memory_limit": limits.memory or f"{least // (1 << 20)}MiB",
        "temp_directory": folder,
        "preserve_insertion_order": False,
    }
    return settings | ({"threads": limits.threads} if limits.threads else {})


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'
