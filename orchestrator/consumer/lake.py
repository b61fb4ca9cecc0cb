"""Writing tables of the event lake: Parquet files by day, whole or not at all.

Beside the tables, `<lake>/_stores/` holds the notes of stores under way
(`orchestrator.consumer.intents`). Readers read `<lake>/<table>/`, files that end in `.parquet`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from contracts.errors import ServiceError
from contracts.tables import LAKE_COLUMNS, Lake
from orchestrator.consumer.intents import Intent

DAY_MS = 24 * 3600 * 1000
STORES = "_stores"
_ARROW: dict[str, Any] = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "list<string>": pa.list_(pa.string()),
    "list<double>": pa.list_(pa.float64()),
    "list<list<string>>": pa.list_(pa.list_(pa.string())),
}


def schema_of(table: Lake) -> pa.Schema:
    return pa.schema([(name, _ARROW[kind]) for name, kind in LAKE_COLUMNS[table].items()])


def files_of(table: Lake, rows: pa.Table, name: str) -> dict[str, pa.Table]:
    """Rows by the path of their file, `<table>/day=YYYY-MM-DD/<name>.parquet`: one for each day
    (UTC) of their `time`."""
    days = rows.column("time").to_numpy() // DAY_MS
    files = {}
    for day in np.unique(days):
        date = datetime.fromtimestamp(int(day) * DAY_MS / 1000, UTC).date()
        files[f"{table.value}/day={date}/{name}.parquet"] = rows.filter(pa.array(days == day))
    return files


class ParquetLake:
    """The lake in a folder, or in S3 when the address begins with s3:// or s3a://."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._place: _Place = _Objects(address) if "://" in address else _Folder(Path(address))

    def write(self, table: Lake, rows: pa.Table, name: str) -> None:
        """Store rows for good, at the places that `files_of` names. ServiceError when the lake
        cannot be written."""
        for path, part in files_of(table, rows, name).items():
            self.write_file(path, part)

    def write_file(self, path: str, rows: pa.Table) -> None:
        with self._told():
            self._place.put(path, lambda out: pq.write_table(rows, out, compression="zstd"))

    def delete(self, files: Iterable[str]) -> None:
        """Delete files, those that are there."""
        with self._told():
            for path in files:
                self._place.delete(path)

    def note(self, intent: Intent) -> None:
        content = intent.to_json()
        with self._told():
            self._place.put(_note(intent.name), lambda out: out.write(content))

    def forget(self, name: str) -> None:
        with self._told():
            self._place.delete(_note(name))

    def intents(self) -> list[Intent]:
        found = []
        with self._told():
            for file in self._place.names(STORES):
                if file.endswith(".json"):
                    content = self._place.get(f"{STORES}/{file}")
                    found += [] if content is None else [self._intent(file, content)]
        return found

    def _intent(self, file: str, content: bytes) -> Intent:
        try:
            return Intent.from_json(file.removesuffix(".json"), content)
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceError(
                f"{self._address}/{STORES}/{file} is no note of a store ({error!r}): it is not known"
                " which files it stands for; look at it and take it away"
            ) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise ServiceError(
                f"the lake {self._address} cannot be written: {error}; "
                "see that it exists, may be written and has room"
            ) from error


def _note(name: str) -> str:
    return f"{STORES}/{name}.json"


class _Place(Protocol):
    """Where files lie. Each appears when it is whole."""

    def put(self, path: str, write: Callable[[Any], object]) -> None: ...

    def get(self, path: str) -> bytes | None: ...

    def delete(self, path: str) -> None: ...

    def names(self, folder: str) -> list[str]: ...


class _Folder:
    """A folder: a file gets its name when it is whole, and what was put there survives a crash of
    the machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, write: Callable[[Any], object]) -> None:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # readers skip names that begin with a dot; the process id parts two that write the same file
        temporary = file.parent / f".{file.stem}.{os.getpid()}.tmp"
        with temporary.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
        _sync_names(file.parent)

    def get(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:  # deleted meanwhile
            return None

    def delete(self, path: str) -> None:
        file = self._root / path
        file.unlink(missing_ok=True)
        for temporary in file.parent.glob(f".{file.stem}.*.tmp"):  # of a process that was killed
            temporary.unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(file.name for file in (self._root / folder).iterdir())
        except FileNotFoundError:
            return []


def _sync_names(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Objects:
    """S3, where an object appears with its last byte."""

    def __init__(self, address: str) -> None:
        self._address = address.replace("s3a://", "s3://", 1)
        self._opened: tuple[Any, str] | None = None

    def put(self, path: str, write: Callable[[Any], object]) -> None:
        store, root = self._store()
        with store.open_output_stream(f"{root}/{path}") as out:
            write(out)

    def get(self, path: str) -> bytes | None:
        store, root = self._store()
        try:
            with store.open_input_stream(f"{root}/{path}") as source:
                content: bytes = source.read()
        except FileNotFoundError:
            return None
        return content

    def delete(self, path: str) -> None:
        store, root = self._store()
        with suppress(FileNotFoundError):
            store.delete_file(f"{root}/{path}")

    def names(self, folder: str) -> list[str]:
        store, root = self._store()
        selector = fs.FileSelector(f"{root}/{folder}", allow_not_found=True)
        return sorted(found.base_name for found in store.get_file_info(selector))

    def _store(self) -> tuple[Any, str]:
        if self._opened is None:
            store, root = fs.FileSystem.from_uri(self._address)
            self._opened = store, root.rstrip("/")
        return self._opened
