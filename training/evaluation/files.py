"""Files that an evaluation reads: a session table, or a shop's events."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import UsageError
from contracts.events import CLICK_TYPES, EventType
from contracts.features import text_id
from contracts.fields import MAX_ID, MAX_PRICE, YEAR_2200
from contracts.file_columns import columns_of, ordered_rows, text
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from contracts.windows import WEEK_MS, bounds
from training.evaluation.shop import Shop

DAY_MS = 86_400_000
EPOCH_MS = int(datetime(2020, 1, 6, tzinfo=UTC).timestamp() * 1000)
"""When a table without times begins: a Monday's midnight."""
STEP_MS = 1000
"""From one click to the next in a table without times."""
MOST_PAST_MS = 52 * WEEK_MS
"""What a train part without times counts as, at most: a table with a small test part must not make its
train part centuries long, nor a label window a handful of sessions."""
TIMELESS = frozenset(
    {"hour", "weekday", "session_duration", "session_mean_gap", "session_last_gap"}
)
"""Features that a table without times cannot tell."""
UNTOLD = frozenset(
    {"session_last_position", "device", "traffic_source", "impressions_7d", "click_rate_7d"}
)
"""Features that neither kind of file tells."""
STRAY = "far after all others"
UNKNOWN = "in the test part, of an item that the train part does not know"
"""Reasons why an event is left out (`contracts.windows.bounds`, `keep_new`)."""
SESSION_COLUMNS = ("session_idx", "position", "item_id", "split")
TYPES = {
    "item_view": EventType.item_view, "view": EventType.item_view, "click": EventType.click,
    "add_to_cart": EventType.add_to_cart, "cart": EventType.add_to_cart,
    "addtocart": EventType.add_to_cart, "checkout": EventType.checkout,
    "purchase": EventType.checkout, "transaction": EventType.checkout,
}  # fmt: skip
"""Names of types in files that an evaluation knows; other types are left out."""


def session_table(path: Path, *, current: bool = True) -> Shop:
    """A table with `session_idx` (in time order), `position`, `item_id` and `split` (train or test),
    Parquet or CSV. It has no times: the test part counts as one week, and what comes before it in
    proportion to its number of sessions, as a year at most. current: see `Shop`. UsageError says
    what is wrong with the table. Clicks of one position keep the order of the file."""
    with _database(path) as database:
        item = _session_columns(database, path)
        other, empty, long = database.execute(_ODD.format(item=item)).fetchall()[0]
        if other or empty or long:
            raise UsageError(
                f"{path}: {other} rows have a split that is neither train nor test, {empty} lack a"
                f" session, a position or an item, {long} have an item id of over {MAX_ID}"
                " characters; mend or drop them"
            )
        train, test, last, first, clicks = database.execute(_PARTS).fetchall()[0]
        if not train or not test:
            raise UsageError(
                f"{path}: {train} train and {test} test sessions; both are needed to evaluate"
            )
        if last >= first:
            raise UsageError(
                f"{path}: train sessions go up to session_idx {last}, test sessions begin at {first}:"
                " sessions have to be numbered in the order of time, the test part last"
            )
        slot = max(1, min(WEEK_MS // test, MOST_PAST_MS // train))
        step = max(1, min(STEP_MS, slot // (clicks + 1)))
        asked = {"train": train, "slot": slot, "step": step, "begin": EPOCH_MS}
        events = database.sql(_SESSIONS.format(item=item), params=asked).to_arrow_table()
        again = _counted(database, _TWICE)
    return Shop(
        path.name, _clean(events), None, EPOCH_MS - train * slot, EPOCH_MS,
        _window(train * slot, WEEK_MS), current=current, unknown=UNTOLD | TIMELESS, left_out=again,
    )  # fmt: skip


def event_file(
    path: Path,
    mapping: Mapping[str, str] | None = None,
    *,
    views_only: bool = False,
    min_item_views: int = 1,
    test_days: float = 7.0,
    keep_new: bool = False,
    current: bool = True,
) -> Shop:
    """A shop's events, Parquet or CSV, with the columns that `nextclick data import` knows. Visits
    are cut after 30 minutes without an event; those of one event are left out, as they hold no
    next click. The test part are the visits that begin in the last `test_days`.

    views_only: whether carts and purchases are left out. min_item_views: items viewed less often
    are left out, as are rows without session, item or time, with ids that are too long, of other
    types, and strays after the end of the history: `Shop.left_out` counts them all. keep_new: whether
    test clicks on items that the train part does not know stay; published evaluations leave them
    out. current: see `Shop`. UsageError says what is wrong.
    """
    types = [name for name, kind in TYPES.items() if not views_only or kind in CLICK_TYPES]
    if not math.isfinite(test_days):
        raise UsageError(f"--test-days {test_days}: expected a number of days, as 7")
    events, catalogue, left_out = _read(path, mapping, types, min_item_views)
    if not len(events):
        raise UsageError(
            f"{path}: no visit is left with two events ({', '.join(types)}) on items that were viewed"
            f" {min_item_views} times or more; see --views-only and --min-item-views; rows left out:"
            f" {left_out or 'none'}"
        )
    times = events["time"].to_numpy()
    length = int(test_days * DAY_MS)
    first, last = bounds(times)
    cutoff = last + 1 - length
    if length <= 0 or cutoff - first < length:
        raise UsageError(
            f"{path}: the events span {(last + 1 - first) / DAY_MS:.2f} days, which leaves"
            f" {max(0, cutoff - first) / DAY_MS:.2f} days before a test part of {test_days:g} days;"
            " at least as many are needed: see --test-days"
        )
    if strays := int(np.count_nonzero(times > last)):
        left_out[STRAY] = strays
        events = events.filter(pa.array(times <= last))
    if not keep_new:
        known = _known_only(events, cutoff)
        if unknown := len(events) - len(known):
            left_out[UNKNOWN] = unknown
        events = known
    return Shop(
        path.name, _clean(events), _catalogue(catalogue), first, cutoff,
        _window(cutoff - first, length), current=current, unknown=UNTOLD, left_out=left_out,
    )  # fmt: skip


def _read(
    path: Path, mapping: Mapping[str, str] | None, types: Sequence[str], least: int
) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    """Events of these types by visit and time, what they say of items, and what is left out or amiss."""
    with _database(path) as database:
        kinds = {row[0]: row[1] for row in database.execute("DESCRIBE file").fetchall()}
        columns, _ = columns_of(path, kinds, mapping)
        source = ordered_rows("file", kinds, columns, YEAR_2200 - 1)
        database.execute("CREATE TEMP TABLE kinds (name VARCHAR, code INTEGER)")
        database.executemany("INSERT INTO kinds VALUES (?, ?)", [[n, int(TYPES[n])] for n in types])
        asked = {"least": least}
        database.execute(_TOLD.format(source=source, sound=_SOUND), asked)
        events = database.sql(_EVENTS).to_arrow_table()
        catalogue = database.sql(
            _CATALOGUE.format(source=source, sound=_SOUND, priced=_PRICED)
        ).to_arrow_table()
        left_out = dict(database.execute(_LEFT_OUT.format(source=source)).fetchall())
        left_out |= _counted(database, _FEW)
    return events, catalogue, left_out


def _window(past: int, test: int) -> int:
    """Length of a label window: that of the test part, or a third of a shorter past."""
    return max(1, min(test, past // 3))


_ODD = f"""SELECT count(*) FILTER (split IS NULL OR split NOT IN ('train', 'test')),
    count(*) FILTER (session_idx IS NULL OR position IS NULL OR {{item}} IS NULL
        OR NOT isfinite(session_idx::DOUBLE) OR NOT isfinite(position::DOUBLE)),
    count(*) FILTER (length({{item}}) > {MAX_ID}) FROM file"""  # noqa: S608  # ours
_PARTS = """SELECT count(DISTINCT session_idx) FILTER (split = 'train'),
    count(DISTINCT session_idx) FILTER (split = 'test'),
    max(session_idx) FILTER (split = 'train'), min(session_idx) FILTER (split = 'test'),
    max(clicks) FROM (SELECT *, count(*) OVER (PARTITION BY session_idx) AS clicks FROM file)"""
_SESSIONS = """WITH placed AS (
        SELECT dense_rank() OVER (ORDER BY session_idx) - 1 AS number, {item} AS item_id,
            row_number() OVER (PARTITION BY session_idx ORDER BY position, rowid) - 1 AS place
        FROM file
    )
    SELECT number::VARCHAR AS visit, number::VARCHAR AS session_id, item_id, 2::INTEGER AS type,
        ($begin + (number - $train) * $slot + place * $step)::BIGINT AS time
    FROM placed ORDER BY number, place"""
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|FLOAT|DOUBLE|DECIMAL")
# as an import, by `contracts.fields`; repeats stay, as in published evaluations
_SOUND = f"""session IS NOT NULL AND item IS NOT NULL AND length(session) <= {MAX_ID}
    AND length(item) <= {MAX_ID} AND ms BETWEEN 0 AND {YEAR_2200 - 1}"""
_PRICED = f"TRY_CAST(price AS DOUBLE) BETWEEN 0 AND {MAX_PRICE}"
_REASONS = {
    "no session or item": "session IS NULL OR item IS NULL",
    "id too long": f"length(session) > {MAX_ID} OR length(item) > {MAX_ID}",
    "no time of 1970 to 2200": f"(ms BETWEEN 0 AND {YEAR_2200 - 1}) IS NOT TRUE",
    "another type": "type IS NULL OR type NOT IN (SELECT name FROM kinds)",
    "price not taken, the row counts": f"price IS NOT NULL AND ({_PRICED}) IS NOT TRUE",
}
"""A row counts under the first that holds."""
_LEFT_OUT = f"""SELECT reason, count(*) FROM (
        SELECT CASE {" ".join(f"WHEN {holds} THEN '{name}'" for name, holds in _REASONS.items())} END
            AS reason FROM ({{source}})
    ) WHERE reason IS NOT NULL GROUP BY ALL"""  # noqa: S608  # ours
_TOLD = """CREATE TEMP TABLE told AS
    WITH told AS (
        SELECT session || '~' || visit AS visit, session AS session_id, item AS item_id,
            kinds.code AS type, ms, row_number() OVER () AS row
        FROM ({source}) AS rows JOIN kinds ON kinds.name = rows.type
        WHERE {sound}
    ),
    viewed AS (SELECT item_id FROM told WHERE type IN (2, 3) GROUP BY ALL HAVING count(*) >= $least)
    SELECT *, count(*) FILTER (often) OVER (PARTITION BY visit) AS n
    FROM (SELECT *, item_id IN (SELECT item_id FROM viewed) AS often FROM told)"""
# times of a visit are made to ascend: events of one second keep their order
_EVENTS = """WITH long AS (
        SELECT *, row_number() OVER (PARTITION BY visit ORDER BY ms, row) AS place
        FROM told WHERE often AND n > 1
    )
    SELECT visit, session_id, item_id, type::INTEGER AS type,
        (max(ms - place) OVER (PARTITION BY visit ORDER BY place) + place)::BIGINT AS time
    FROM long ORDER BY min(ms) OVER (PARTITION BY visit), visit, place"""
_AGAIN = "repeats another row, the row counts"
_FEW = f"""SELECT count(*) FILTER (NOT often) AS "item viewed too seldom",
    count(*) FILTER (often AND n = 1) AS "the only event of its visit",
    count(*) - count(DISTINCT (visit, item_id, type, ms)) AS "{_AGAIN}" FROM told"""  # noqa: S608  # ours
_TWICE = f"""SELECT count(*) - count(DISTINCT (session_idx, position, item_id)) AS "{_AGAIN}"
    FROM file"""  # noqa: S608  # ours
# a row for each change, so that nobody knows a price before it was told
_CATALOGUE = """WITH told AS (
        SELECT item AS item_id, ms::BIGINT AS time, category, brand,
            CASE WHEN {priced} THEN TRY_CAST(price AS DOUBLE) END AS price,
            row_number() OVER () AS row
        FROM ({source}) WHERE {sound}
    ),
    holds AS (
        SELECT item_id, time, last_value(category IGNORE NULLS) OVER so_far AS category,
            last_value(brand IGNORE NULLS) OVER so_far AS brand,
            last_value(price IGNORE NULLS) OVER so_far AS price
        FROM told WINDOW so_far AS (PARTITION BY item_id ORDER BY time, row)
        QUALIFY row_number() OVER (PARTITION BY item_id, time ORDER BY row DESC) = 1
    )
    SELECT * FROM holds WINDOW before AS (PARTITION BY item_id ORDER BY time)
    QUALIFY lag(time) OVER before IS NULL OR category IS DISTINCT FROM lag(category) OVER before
        OR brand IS DISTINCT FROM lag(brand) OVER before
        OR price IS DISTINCT FROM lag(price) OVER before
    ORDER BY item_id, time"""


def _counted(database: Any, query: str) -> dict[str, int]:
    """The columns of a query's only row that are not 0, by name."""
    answer = database.execute(query)
    names = [column[0] for column in answer.description]
    return {name: count for name, count in zip(names, answer.fetchone(), strict=True) if count}


@contextmanager
def _database(path: Path) -> Iterator[Any]:
    """DuckDB with the file as the view `file`."""
    import duckdb

    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        with path.open("rb") as file:
            read = "read_parquet" if file.read(4) == b"PAR1" else "read_csv_auto"
        try:
            statement = f"CREATE TEMP TABLE file AS SELECT * FROM {read}($path)"  # noqa: S608  # ours
            database.execute(statement, {"path": str(path)})
        except duckdb.Error as error:
            reason = str(error).splitlines()[0][:300]
            raise UsageError(
                f"{path} cannot be read as {'Parquet' if read == 'read_parquet' else 'CSV'}: {reason}"
            ) from None
        yield database


def _session_columns(database: Any, path: Path) -> str:
    """SQL of the item's id in a session table; UsageError where a column is missing or of another
    kind."""
    kinds = {row[0]: row[1] for row in database.execute("DESCRIBE file").fetchall()}
    if missing := [name for name in SESSION_COLUMNS if name not in kinds]:
        raise UsageError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(kinds)}; a session table has"
            f" {', '.join(SESSION_COLUMNS)}; a shop's events are evaluated by --events {path.name}"
        )
    if not database.execute("SELECT count(*) FROM file").fetchall()[0][0]:
        raise UsageError(f"{path}: holds no row")
    texts = [name for name in ("session_idx", "position") if not _NUMBER.match(kinds[name])]
    if texts:
        raise UsageError(
            f"{path}: {', '.join(texts)} hold {', '.join(kinds[name] for name in texts)}, expected"
            " numbers: sessions numbered in the order of time, clicks in that of the session"
        )
    if not kinds["split"].startswith(("VARCHAR", "ENUM")):
        raise UsageError(f"{path}: split holds {kinds['split']}, expected the texts train and test")
    return text('"item_id"', kinds["item_id"])


def _known_only(events: pa.Table, cutoff: int) -> pa.Table:
    """Without clicks from the cut-off on of items that were not clicked before it."""
    early = pc.less(events["time"], cutoff)
    known = pc.unique(events.filter(early)["item_id"])
    return events.filter(pc.or_(early, pc.is_in(events["item_id"], value_set=known)))


def _clean(events: pa.Table) -> pa.Table:
    """With the other columns of `Offline.events_clean` that are read: known when they happened."""
    return events.append_column("received", events["time"]).append_column(
        "key", pa.array(range(len(events)), pa.int64())
    )


def _catalogue(said: pa.Table) -> pa.Table:
    """`Offline.item_catalogue`: what the file says of each item, known from the event that says it."""
    at = said["time"].cast(pa.timestamp("ms", "UTC"))
    texts = {name: said[name].to_pylist() for name in ("category", "brand")}
    return pa.table(
        {
            "item_id": said["item_id"], EVENT_TIMESTAMP: at, CREATED_TIMESTAMP: at,
            "category": said["category"], "brand": said["brand"],
            "category_id": pa.array([text_id(text) for text in texts["category"]], pa.int64()),
            "brand_id": pa.array([text_id(text) for text in texts["brand"]], pa.int64()),
            "price": said["price"].cast(pa.float32()),
            "available": pa.array([1] * len(said), pa.int64()),
        }
    )  # fmt: skip
