"""What drift is measured between: the rows that were served and the reference of their release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ReleaseError
from contracts.features import BY_NAME, Group
from contracts.release import Release
from contracts.settings import Settings
from contracts.tables import Lake
from monitoring.lake import lake_dataset

if TYPE_CHECKING:
    import pandas as pd

SCORE = "score"
MAX_ROWS = 50_000
"""More rows than this are sampled: PSI does not change, reading and drawing take time."""
SEED = 7


@dataclass(frozen=True)
class Sample:
    """Rows of one release.

    frame: float64 columns (the release's features and `score`), nan where there is no value, at
    most `MAX_ROWS` rows. absent: columns that no file has. rows, answers: how many there are in
    all; the rows of an answer share its session, so it is the answers that are independent.
    first, last: times of the answers, milliseconds; None where unknown.
    """

    frame: pd.DataFrame
    rows: int
    answers: int
    absent: tuple[str, ...] = ()
    first: int | None = None
    last: int | None = None


def read_reference(folder: Path, release: Release) -> Sample:
    """The training reference of a release; ReleaseError where it is missing or lacks a column."""
    import pyarrow.parquet as pq

    path = folder / "reference.parquet"
    columns = [*release.features, SCORE]
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError:
        raise ReleaseError(f"{path} is missing: train a new release (./nextclick train)") from None
    absent = [name for name in columns if name not in schema.names]
    if absent:
        raise ReleaseError(
            f"{path} lacks {', '.join(absent)}, which release {release.version} is made of:"
            " train a new release (./nextclick train)"
        )
    frame = pq.read_table(path, columns=columns).to_pandas()
    if frame.empty:
        raise ReleaseError(f"{path} holds no rows: train a new release (./nextclick train)")
    answers = _different_visits(frame, release.features)
    return Sample(_cut(frame), rows=len(frame), answers=answers)


def read_served(settings: Settings, release: Release, since: datetime | None = None) -> Sample:
    """What the release served (from `since`), each (request, item) once.

    The lake's files differ in their columns: they are read by name, what a file lacks is missing.
    """
    import duckdb
    import pyarrow as pa

    columns = [*release.features, SCORE]
    kinds = {"request_id": "string", "item_id": "string", "release": "string", "time": "int64"}
    fields = {**dict.fromkeys(columns, "double"), **kinds}
    dataset = lake_dataset(
        settings, Lake.served, pa.schema([(n, pa.type_for_alias(k)) for n, k in fields.items()])
    )
    present = {name for file in dataset.get_fragments() for name in file.physical_schema.names}
    start = 0 if since is None else int(since.timestamp() * 1000)
    with duckdb.connect() as database:
        database.register("lake", dataset)
        database.execute(_ONCE, [release.version, start])
        counts = database.execute(_COUNTS).fetchone() or (0, 0, None, None)
        frame = database.execute(_SAMPLE, [str(SEED), MAX_ROWS]).df()[columns]
    rows, answers, first, last = counts
    absent = tuple(name for name in columns if name not in present) if rows else ()
    return Sample(_cut(frame), rows, answers, absent, first, last)


_ONCE = """create temp table served as
    select distinct on (request_id, item_id) * from lake
    where release = ? and time >= ? and score is not null"""
_COUNTS = "select count(*), count(distinct request_id), min(time), max(time) from served"
# by hash: the same rows in whatever order the files are read
_SAMPLE = (
    "select * from served order by hash(request_id || item_id || ?), request_id, item_id limit ?"
)


def _different_visits(frame: pd.DataFrame, features: Sequence[str]) -> int:
    """Different visits in the reference, which has no request ids: rows of one have the same
    session features."""
    known = [BY_NAME[name] for name in features if name in BY_NAME]
    shared = [f.name for f in known if f.group in (Group.session, Group.context)]
    return len(frame[shared].drop_duplicates()) if shared else len(frame)


def _cut(frame: pd.DataFrame) -> pd.DataFrame:
    import numpy as np

    if len(frame) > MAX_ROWS:
        frame = frame.sample(MAX_ROWS, random_state=SEED)
    return frame.astype("float64").replace([np.inf, -np.inf], np.nan).reset_index(drop=True)
