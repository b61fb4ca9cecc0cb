"""The event lake and the offline tables as data sets of pyarrow, here or on S3."""

from __future__ import annotations

from typing import Any

from contracts.settings import Settings
from contracts.tables import Lake

_HIDDEN = (".", "_")
"""Names that begin so are on their way to becoming a table."""


def lake_dataset(settings: Settings, table: Lake, schema: Any, newest_files: int = 0) -> Any:
    """A `pyarrow.dataset.Dataset` with the columns of `schema`, whatever columns each file has.

    What a file lacks is null. `newest_files`: only the last so many, by day; 0: all of them.
    """
    return dataset(f"{settings.lake}/{table}", schema, newest_files)


def dataset(address: str, schema: Any, newest_files: int = 0) -> Any:
    """The same of any folder of Parquet files; no file at all gives no rows."""
    import pyarrow.dataset as ds
    from pyarrow import fs

    if "://" in address:
        system, path = fs.FileSystem.from_uri(address.replace("s3a://", "s3://", 1))
    else:
        system, path = fs.LocalFileSystem(), address
    found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = sorted(
        file.path
        for file in found
        if file.path.endswith(".parquet") and not file.base_name.startswith(_HIDDEN)
    )
    return ds.dataset(files[-newest_files:], schema=schema, format="parquet", filesystem=system)
