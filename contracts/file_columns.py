"""Which column of a file means what, and the SQL that reads it in our terms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.errors import UsageError
from contracts.events import SESSION_IDLE
from contracts.fields import MAX_ID

NEEDED = ("session", "item", "time", "type")
OPTIONAL = ("price", "quantity", "position", "device", "source", "query", "event_id")
PRODUCT = ("category", "brand")
KNOWN = (*NEEDED, *OPTIONAL, *PRODUCT)
EXAMPLE = "--map session=visitor,item=product,time=timestamp,type=action"
OWN = {"session": "session_id", "item": "item_id"}
"""Our own field names, where they differ from the names of the mapping."""
REES46 = {
    "time": "event_time",
    "type": "event_type",
    "item": "product_id",
    "price": "price",
    "brand": "brand",
}
IDLE_MS = int(SESSION_IDLE.total_seconds() * 1000)
SECONDS_BELOW = 100_000_000_000
"""A time given as a number below this (as milliseconds: March 1973) is in seconds."""

Mapped = dict[str, str]
"""Our name to an SQL expression over the file's columns."""


def columns_of(
    path: Path, types: Mapping[str, str], mapping: Mapping[str, str] | None
) -> tuple[Mapped, str]:
    """The file's columns in our terms, and the name of its layout. `types`: SQL type by column.

    UsageError when a column that is needed is not there: it lists what was found and needed.
    """
    if mapping is not None:
        _check(path, types, mapping)
        return {name: _quoted(column) for name, column in mapping.items()}, "mapped"
    own = {name: OWN.get(name, name) for name in KNOWN}
    if all(own[name] in types for name in NEEDED):
        return {name: _quoted(column) for name, column in own.items() if column in types}, "own"
    session = next((name for name in ("user_session", "session_id") if name in types), None)
    if session and all(REES46[name] in types for name in ("time", "type", "item")):
        found = {name: _quoted(column) for name, column in REES46.items() if column in types}
        return found | {"session": _quoted(session)} | _category(types), "REES46"
    raise UsageError(
        f"{path}: found the columns {', '.join(types)}; needed are session_id, item_id, time, type "
        "(or REES46's event_time, event_type, product_id, user_session), or say which columns "
        f"they are: {EXAMPLE}; beside these, {', '.join((*OPTIONAL, *PRODUCT))} may be mapped"
    )


def _check(path: Path, types: Mapping[str, str], mapping: Mapping[str, str]) -> None:
    if unknown := [name for name in mapping if name not in KNOWN]:
        raise UsageError(
            f"--map: {', '.join(unknown)} cannot be mapped, only {', '.join(KNOWN)}; example: {EXAMPLE}"
        )
    if absent := [name for name in NEEDED if name not in mapping]:
        raise UsageError(f"--map: {', '.join(absent)} is needed too; example: {EXAMPLE}")
    if lost := [column for column in mapping.values() if column not in types]:
        raise UsageError(
            f"{path}: no column {', '.join(lost)} as --map says; found {', '.join(types)}; "
            f"example: {EXAMPLE}"
        )


def _category(types: Mapping[str, str]) -> Mapped:
    names = [name for name in ("category_code", "category_id") if name in types]
    texts = [f"nullif(CAST({_quoted(name)} AS VARCHAR), '')" for name in names]
    return {"category": f"coalesce({', '.join(texts)})"} if texts else {}


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def ordered_rows(source: str, types: Mapping[str, str], columns: Mapped, latest: int) -> str:
    """SQL: all rows of `source` in order of time, with the columns `KNOWN`, `visit` (number of the
    visit within the session, from 1), `ms` (time in milliseconds or null) and `raw` (the row).

    A time after `latest` or before 1970 takes no part in cutting visits: it will be refused.
    Sorting is DuckDB's: it spills to disk where memory ends.
    """
    expressions = {name: _expression(name, columns, types) for name in KNOWN}
    selected = ", ".join(f'{value} AS "{name}"' for name, value in expressions.items())
    return f"""
        WITH numbered AS (SELECT t AS raw, t.*, row_number() OVER () AS file_row FROM {source} t),
        named AS (
            SELECT raw, file_row, {selected}, {milliseconds(columns["time"])} AS ms FROM numbered
        ),
        timed AS (
            SELECT *, CASE WHEN ms BETWEEN 0 AND {latest} THEN ms END AS good_ms FROM named
        ),
        cut AS (
            SELECT *, good_ms - lag(good_ms) OVER in_session > {IDLE_MS} AS begins
            FROM timed WINDOW in_session AS (PARTITION BY session ORDER BY good_ms, file_row)
        )
        SELECT * EXCLUDE (file_row, good_ms, begins),
            1 + coalesce(sum(begins::INTEGER) OVER in_session, 0) AS visit,
            event_id IS NOT NULL AND count(*) OVER (PARTITION BY event_id) > 1 AS shared_id
        FROM cut WINDOW in_session AS (PARTITION BY session ORDER BY good_ms, file_row)
        ORDER BY ms NULLS FIRST, file_row
    """  # noqa: S608  # column names are quoted, the rest is ours


def _expression(name: str, columns: Mapped, types: Mapping[str, str]) -> str:
    if name not in columns:
        return "NULL::VARCHAR"
    column = columns[name]
    kind = types.get(column.strip('"'), "")
    if name == "time":
        return f"CAST({column} AS VARCHAR)"  # shown where it is refused; `ms` is what is used
    if name in {"price", "quantity", "position"} and kind != "VARCHAR":
        return _known(column) if kind in _FLOATS else column
    return text(column, kind)


def text(column: str, kind: str) -> str:
    """SQL: a column of this SQL type as trimmed text, null where it is empty or NaN. Whole numbers
    among floats, as pandas writes ids with gaps, are written as such. An id longer than allowed is
    cut, and still too long."""
    told = f"CAST({column} AS VARCHAR)"
    if kind in _FLOATS:
        known = _known(column)
        whole = f"CASE WHEN {column} = trunc({column}) THEN TRY_CAST({column} AS BIGINT) END"
        told = f"coalesce(CAST({whole} AS VARCHAR), CAST({known} AS VARCHAR))"
    return f"nullif(left(trim({told}), {MAX_ID * 10}), '')"


_FLOATS = ("FLOAT", "DOUBLE")


def _known(column: str) -> str:
    return f"CASE WHEN NOT isnan({column}) THEN {column} END"


def milliseconds(column: str) -> str:
    """SQL: a time as milliseconds since 1970, null where it is none. Understood are timestamps (UTC
    where they have no zone), ISO 8601 texts, also with " UTC" at the end, and numbers."""
    told = f"trim(CAST({column} AS VARCHAR))"
    number = f"TRY_CAST({told} AS DOUBLE)"
    zoned = f"TRY_CAST(regexp_replace({told}, ' ?UTC$', '+00') AS TIMESTAMPTZ)"
    return f"""CASE
        WHEN {number} IS NULL THEN epoch_ms({zoned})
        WHEN isfinite({number}) AND abs({number}) < 1e15
            THEN CAST(CASE WHEN abs({number}) < {SECONDS_BELOW} THEN {number} * 1000 ELSE {number} END AS BIGINT)
        END"""
