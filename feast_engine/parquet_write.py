"""Writing Parquet tables so that a reader never sees half a file and no writer undoes another's."""

from __future__ import annotations

import fcntl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from contracts.errors import ServiceError, UsageError
from feast_engine.parquet import ParquetTable

ROW_GROUP = 122_880
"""Rows of a row group: readers skip whole groups, and hold one at a time."""
LOCK_SECONDS = 60.0
SUFFIX = ".parquet"


def append(path: str, filesystem: Any, table: pa.Table) -> None:
    """Add rows to a table. A folder gets a file more; a single local file is written anew beside
    the old one, which it then replaces, while other writers wait.

    UsageError for columns that are not the table's, and for a single file on S3, where nobody can
    be made to wait.
    """
    if not exists(path, filesystem):
        _write_new(path if path.endswith(SUFFIX) else _part_of(path), filesystem, table)
        return
    if not _is_file(path, filesystem):
        held = ParquetTable(path, filesystem).schema if _has_files(path, filesystem) else None
        write_part(path, filesystem, table if held is None else fitted(table, held))
        return
    if filesystem is not None:
        raise UsageError(f"{path} is one file on S3, to which rows cannot be added: name a folder")
    with _locked(Path(path)):
        held = pq.read_schema(path)
        _write_new(path, None, fitted(table, held), before=Path(path))


def overwrite(path: str, filesystem: Any, table: pa.Table) -> None:
    """Put a table in the place of what is there: one file where the path ends in `.parquet`, else
    a folder with one file."""
    if path.endswith(SUFFIX):
        _write_new(path, filesystem, table)
        return
    old = ParquetTable(path, filesystem).files if _has_files(path, filesystem) else []
    write_part(path, filesystem, table)
    for name in old:
        _of(filesystem).delete_file(name)


def write_part(folder: str, filesystem: Any, table: pa.Table) -> None:
    """A file more in a folder, whatever the others hold."""
    _write_new(_part_of(folder), filesystem, table)


def exists(path: str, filesystem: Any) -> bool:
    return bool(_of(filesystem).get_file_info(path).type != fs.FileType.NotFound)


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns and types of another, times without a zone taken as UTC.

    UsageError where a column is lacking, unknown or does not fit.
    """
    lost, unknown = (
        set(schema.names) - set(table.column_names),
        set(table.column_names) - set(schema.names),
    )
    if lost or unknown:
        raise UsageError(
            f"the rows have other columns than the table: missing {sorted(lost)}, unknown {sorted(unknown)}"
        )
    columns = []
    for field in schema:
        try:
            columns.append(_cast(table[field.name], field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UsageError(f"the column {field.name!r} does not fit the table: {error}") from None
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not (pa.types.is_timestamp(kind) and pa.types.is_timestamp(column.type)):
        return column.cast(kind)
    if column.type.tz is None and kind.tz is not None:
        column = pc.assume_timezone(column, "UTC")
    elif kind.tz is None and column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    # finer parts than the table keeps are cut off
    return column.cast(kind, safe=False)


def _write_new(path: str, filesystem: Any, table: pa.Table, before: Path | None = None) -> None:
    """before: a local file whose rows come first, row group by row group, in their places."""
    if filesystem is not None:
        pq.write_table(
            table, path, filesystem=filesystem, row_group_size=ROW_GROUP
        )  # whole or not at all
        return
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with pq.ParquetWriter(unfinished, table.schema) as writer:
            for group in _groups(before):
                writer.write_table(group)
            writer.write_table(table, row_group_size=ROW_GROUP)
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)


def _groups(path: Path | None) -> Iterator[pa.Table]:
    if path is None:
        return
    with pq.ParquetFile(path, memory_map=True) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, of all processes of the machine. ServiceError after `LOCK_SECONDS`."""
    end = time.monotonic() + LOCK_SECONDS
    with path.with_name(f".{path.name}.lock").open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ServiceError(
                        f"{path}: another writer holds it for {LOCK_SECONDS:g} s"
                    ) from None
                time.sleep(0.02)
        yield


def _part_of(folder: str) -> str:
    return f"{folder.rstrip('/')}/{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex}{SUFFIX}"


def _of(filesystem: Any) -> Any:
    return filesystem or fs.LocalFileSystem()


def _is_file(path: str, filesystem: Any) -> bool:
    return bool(_of(filesystem).get_file_info(path).type == fs.FileType.File)


def _has_files(path: str, filesystem: Any) -> bool:
    try:
        return bool(ParquetTable(path, filesystem).files)
    except UsageError:
        return False
