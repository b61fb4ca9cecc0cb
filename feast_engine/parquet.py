"""Parquet tables, a file or a folder of them, local or on S3, whose rows have numbers.

A row's number is its file's place in the list of files and its place in the file. With it a join
reads the few columns it needs first and fetches the features of the rows it found afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from contracts.errors import ServiceError, UsageError
from feast_engine.database import quoted
from feast_engine.times import TimeRange

ROW = "row number"
"""The column that holds it."""
PLACE_BITS = 40
"""Of a row number, the place in the file; above them the file."""
TAKE_BYTES = 128 << 20
"""Row groups are read this many (uncompressed) bytes at once when rows are fetched."""
_AT_ONCE = 16

Integers = npt.NDArray[np.int64]


class NoTable(UsageError):
    """A folder without files, or none: what makes the table has not run."""


@dataclass(frozen=True)
class _Footer:
    schema: pa.Schema
    rows: list[int]
    """Of each row group."""


class ParquetTable:
    """The files of a table as they lay when it was opened. `remote`: not the machine's own files,
    so read by pyarrow and not by DuckDB, which cannot fetch its S3 part offline.

    UsageError where there is no file or one is no Parquet; ServiceError where the store of files
    does not answer.
    """

    def __init__(self, path: str, filesystem: Any = None) -> None:
        self.path = path
        self.remote = filesystem is not None
        self.filesystem = filesystem or fs.LocalFileSystem()
        self.files = self._asked(self._list)
        if not self.files:
            raise NoTable(f"{path} holds no Parquet files")

    def _list(self) -> list[str]:
        found = self.filesystem.get_file_info(self.path)
        if found.type == fs.FileType.File:
            return [self.path]
        inside = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        names = (info.path for info in self.filesystem.get_file_info(inside) if info.is_file)
        return sorted(name for name in names if _is_data(name[len(self.path) :]))

    def _asked(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except pa.ArrowInvalid as error:
            raise UsageError(f"{self.path}: not a Parquet table: {error}") from None
        except OSError as error:
            raise ServiceError(f"{self.path}: cannot be read: {error}") from None

    def _open(self, name: str) -> pq.ParquetFile:
        if self.remote:
            return pq.ParquetFile(name, filesystem=self.filesystem, pre_buffer=True)
        return pq.ParquetFile(name, memory_map=True)

    @cached_property
    def _footers(self) -> list[_Footer]:
        def footer(name: str) -> _Footer:
            with self._open(name) as file:
                return _Footer(file.schema_arrow.remove_metadata(), _row_counts(file.metadata))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            footers: list[_Footer] = self._asked(lambda: list(pool.map(footer, self.files)))
        return footers

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of all files; a file that lacks one has nulls there."""
        schemas = [footer.schema for footer in self._footers]
        try:
            return pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowTypeError as error:
            raise UsageError(f"{self.path}: the files do not fit one another: {error}") from None

    def require(self, columns: Sequence[str]) -> None:
        lost = [name for name in columns if name not in self.schema.names]
        if lost:
            raise UsageError(f"{self.path} has no column {lost[0]!r}; it has {self.schema.names}")

    # --- in DuckDB ---

    def register(
        self, connection: Any, name: str, columns: Sequence[str], ranges: Sequence[TimeRange] = ()
    ) -> None:
        """Make the columns, and `ROW`, readable in DuckDB under a name, once for a remote table.

        ranges: row groups that lie outside are left out where their statistics say so; rows are
        still to be filtered.
        """
        self.require(columns)
        if self.remote:
            connection.register(name, self._reader(columns, ranges))
            return
        number = f"(file_index::BIGINT << {PLACE_BITS}) + file_row_number"
        listed = ", ".join([*map(quoted, columns), f'{number} AS "{ROW}"'])
        files = ", ".join("'" + file.replace("'", "''") + "'" for file in self.files)
        many = ", union_by_name = true" if len(self.files) > 1 else ""
        source = f"read_parquet([{files}], hive_partitioning = false{many})"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {listed} FROM {source}")  # noqa: S608

    def _reader(self, columns: Sequence[str], ranges: Sequence[TimeRange]) -> pa.RecordBatchReader:
        fields = [self.schema.field(column) for column in columns]
        schema = pa.schema([*fields, pa.field(ROW, pa.int64())])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema, ranges))

    def _batches(self, schema: pa.Schema, ranges: Sequence[TimeRange]) -> Iterator[pa.RecordBatch]:
        """Row groups that may hold rows of the ranges, in order, their rows numbered."""
        groups, numbers = self._groups(ranges)
        if not groups:
            return
        kind = ds.ParquetFileFormat()
        table = ds.FileSystemDataset(groups, self.schema, kind, self.filesystem)
        columns = schema.names[:-1]
        at, place = 0, 0
        for batch in table.to_batches(columns=columns, batch_size=1 << 17):
            done = 0
            while done < batch.num_rows:  # a batch lies within a row group, an empty one aside
                first, count = numbers[at]
                size = min(batch.num_rows - done, count - place)
                rows = pa.array(np.arange(first + place, first + place + size))
                part = batch.slice(done, size)
                yield pa.RecordBatch.from_arrays([*part.columns, rows], schema=schema)
                done, place = done + size, place + size
                if place == count:
                    at, place = at + 1, 0

    def _groups(self, ranges: Sequence[TimeRange]) -> tuple[list[Any], list[tuple[int, int]]]:
        """Fragments of one row group each; the number of its first row and its count of rows."""
        keep = TimeRange.expression(ranges, self.schema)
        table = ds.dataset(
            self.files, schema=self.schema, format="parquet", filesystem=self.filesystem
        )
        groups, numbers = [], []
        for place, file in enumerate(self._asked(lambda: list(table.get_fragments()))):
            firsts = np.cumsum([0, *self._footers[place].rows])
            for group in file.split_by_row_group(keep, schema=self.schema):
                [found] = group.row_groups
                if found.num_rows:
                    groups.append(group)
                    first = (place << PLACE_BITS) + int(firsts[found.id])
                    numbers.append((first, found.num_rows))
        return groups, numbers

    # --- rows by number ---

    def take(self, rows: Integers, columns: Sequence[str]) -> pa.Table:
        """The columns of rows. rows: numbers, ascending, each once. Answers are in their order."""
        self.require(columns)
        schema = pa.schema([self.schema.field(column) for column in columns])
        files = rows >> PLACE_BITS
        parts = [schema.empty_table()]
        for file in np.unique(files):
            places = rows[files == file] & ((1 << PLACE_BITS) - 1)
            parts += self._asked(partial(self._of_file, int(file), places, schema))
        return pa.concat_tables(parts)

    def _of_file(self, file: int, places: Integers, schema: pa.Schema) -> list[pa.Table]:
        counts = np.array(self._footers[file].rows)
        firsts = np.cumsum([0, *counts])
        # places[edges[g]:edges[g + 1]] lie in the row group g
        edges = np.searchsorted(places, firsts)
        columns = [name for name in schema.names if name in self._footers[file].schema.names]
        parts = []
        with self._open(self.files[file]) as opened:
            for groups in _by_size(opened.metadata, np.flatnonzero(np.diff(edges)).tolist()):
                whole = _read(opened, groups, columns)
                starts = np.cumsum([0, *counts[groups]])  # of the groups in `whole`
                inside = [
                    places[edges[group] : edges[group + 1]] - firsts[group] + start
                    for group, start in zip(groups, starts[:-1], strict=True)
                ]
                parts.append(_fitted(whole.take(pa.array(np.concatenate(inside))), schema))
        return parts


def _read(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
    if columns:
        return file.read_row_groups(groups, columns=columns)
    rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    return pa.table({ROW: pa.nulls(rows)})  # the file is older than these columns


def _is_data(inside: str) -> bool:
    """Whether a file of a folder belongs to the table: not the temporary ones of its writers."""
    parts = Path(inside).parts
    return inside.endswith(".parquet") and not any(part.startswith(("_", ".")) for part in parts)


def _row_counts(metadata: pq.FileMetaData) -> list[int]:
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _by_size(metadata: pq.FileMetaData, groups: list[int]) -> Iterator[list[int]]:
    """The row groups in lists of about `TAKE_BYTES`."""
    held: list[int] = []
    size = 0
    for group in groups:
        held.append(group)
        size += metadata.row_group(group).total_byte_size
        if size >= TAKE_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _fitted(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """The part with the columns and types of the whole table; columns that it lacks are null."""
    columns = [
        part[field.name].cast(field.type)
        if field.name in part.column_names
        else pa.nulls(part.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
