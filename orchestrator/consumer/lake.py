"""Writing tables of the event lake: Parquet files by day, whole or not at all."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from contracts.errors import ServiceError
from contracts.tables import LAKE_COLUMNS, Lake

DAY_MS = 24 * 3600 * 1000
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


class ParquetLake:
    """The lake in a folder, or in S3 when the address begins with s3:// or s3a://.

    A file gets its name when it is whole: in a folder by renaming, in S3 because an object appears
    only with its last byte.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def write(self, table: Lake, rows: pa.Table, name: str) -> None:
        """Store rows at `<lake>/<table>/day=YYYY-MM-DD/<name>.parquet`, a file for each day (UTC)
        of their `time`. ServiceError when the lake cannot be written."""
        days = rows.column("time").to_numpy() // DAY_MS
        try:
            for day in np.unique(days):
                date = datetime.fromtimestamp(int(day) * DAY_MS / 1000, UTC).date()
                part = rows.filter(pa.array(days == day))
                self._write_file(f"{table.value}/day={date}", name, part)
        except (OSError, pa.ArrowException) as error:
            raise ServiceError(
                f"the lake {self._address} cannot be written: {error}; "
                "see that it exists, may be written and has room"
            ) from error

    def _write_file(self, folder: str, name: str, rows: pa.Table) -> None:
        if "://" in self._address:
            self._write_object(f"{folder}/{name}.parquet", rows)
        else:
            _write_whole(Path(self._address) / folder, name, rows)

    def _write_object(self, path: str, rows: pa.Table) -> None:
        store, root = fs.FileSystem.from_uri(self._address.replace("s3a://", "s3://", 1))
        with store.open_output_stream(f"{root}/{path}") as out:
            pq.write_table(rows, out, compression="zstd")


def _write_whole(folder: Path, name: str, rows: pa.Table) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # readers skip names that begin with a dot; the process id parts two that write the same file
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    with temporary.open("wb") as out:
        pq.write_table(rows, out, compression="zstd")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(folder / f"{name}.parquet")
