"""The event lake as one data set of pyarrow, here or on S3."""

from __future__ import annotations

from typing import Any

from contracts.settings import Settings
from contracts.tables import Lake


def lake_dataset(settings: Settings, table: Lake, schema: Any, newest_files: int = 0) -> Any:
    """A `pyarrow.dataset.Dataset` with the columns of `schema`, whatever columns each file has.

    What a file lacks is null. `newest_files`: only the last so many, by day; 0: all of them.
    """
    import pyarrow.dataset as ds
    from pyarrow import fs

    address = f"{settings.lake}/{table}"
    if "://" in address:
        system, path = fs.FileSystem.from_uri(address.replace("s3a://", "s3://", 1))
    else:
        system, path = fs.LocalFileSystem(), address
    found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = sorted(file.path for file in found if file.path.endswith(".parquet"))
    return ds.dataset(files[-newest_files:], schema=schema, format="parquet", filesystem=system)
