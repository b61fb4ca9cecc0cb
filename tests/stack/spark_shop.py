"""Lakes for the Spark jobs, made by hand and at random, and how they get to Spark."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.events import Event
from contracts.settings import Settings
from contracts.tables import LAKE_COLUMNS, Lake
from spark_jobs.clean import clean, messages, parsed
from spark_jobs.item_days import DAY_MS
from spark_jobs.tables import spark_schema

Row = dict[str, Any]
MINUTE = 60_000


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def lake_frame(spark: Any, table: Lake, rows: Iterable[Row]) -> Any:
    """Rows in the order in which they came; they need not say where they lay."""
    columns = LAKE_COLUMNS[table]
    placed = ({"partition": 0, "offset": n, **row} for n, row in enumerate(rows))
    given = [tuple(row.get(name) for name in columns) for row in placed]
    return spark.createDataFrame(given, spark_schema(columns))


def event(session: str, kind: str, time: int, item: str | None = None, **more: Any) -> Row:
    made = Event.model_validate(
        {"session_id": session, "type": kind, "time": time, "item_id": item}
    )
    row = {"event_id": made.event_id, "session_id": session, "type": kind, "time": time}
    return {**row, "item_id": item, "received": time, **more}


def sent(spark: Any, rows: Iterable[Row]) -> Any:
    return messages(parsed(lake_frame(spark, Lake.events, rows)))


def cleaned(spark: Any, rows: Iterable[Row]) -> Any:
    return clean(sent(spark, rows))


def shop_with_two_aisles(cutoff: int) -> Iterator[Row]:
    """Visits stay in one aisle of four items; after the cut-off someone sees a new item."""
    chance = seeded(5)
    for number in range(200):
        aisle = ["a1", "a2", "a3", "a4"] if number % 2 else ["b1", "b2", "b3", "b4"]
        for step in range(6):
            yield event(
                f"s{number}",
                "click",
                cutoff - 10_000 + step,
                chance.choice(aisle),
                event_id=f"{number}-{step}",
            )
    yield event("late", "click", cutoff, "new", event_id="1")
    yield event("late", "click", cutoff + 1, "a1", event_id="2")


def write_lake(settings: Settings, table: Lake, rows: list[Row]) -> None:
    kinds = {
        "double": pa.float64(),
        "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()),
        "list<double>": pa.list_(pa.float64()),
        "list<list<string>>": pa.list_(pa.list_(pa.string())),
    }
    schema = pa.schema(
        [(n, kinds.get(k) or pa.type_for_alias(k)) for n, k in LAKE_COLUMNS[table].items()]
    )
    folder = Path(settings.lake) / table.value / "day=1970-01-11"
    folder.mkdir(parents=True, exist_ok=True)
    placed = [{"partition": 0, "offset": offset, **row} for offset, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(placed, schema), folder / "part.parquet")


def late_shop(chance: random.Random) -> dict[Lake, list[Row]]:
    """Messages of five days in the order in which they became known."""

    def known(time: int) -> int:
        return time + chance.choice([0, 20, MINUTE, 8 * MINUTE, 30 * 3_600_000])

    def times(count: int) -> list[int]:
        return sorted(DAY_MS + chance.randrange(4 * DAY_MS) for _ in range(count))

    def ordered(rows: list[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: row["received"])

    kinds = ["item_view", "click", "add_to_cart", "checkout", "search", "heartbeat"]
    events = []
    for n, time in enumerate(times(400)):
        name = str(chance.randrange(n)) if chance.random() < 0.1 and n else str(n)
        kind = chance.choice(kinds)
        item = None if kind in {"search", "heartbeat"} else chance.choice("abc")
        session = f"s{int(name) // 8}"
        events.append(event(session, kind, time, item, event_id=name, received=known(time)))
    words = [
        {"item_id": chance.choice("abc"), "time": time, "received": known(time)}
        for time in times(80)
    ]
    lists = [
        {"request_id": str(n // 2), "time": time, "received": known(time), "items": ["a", "b"]}
        for n, time in enumerate(times(40))
    ]
    return {
        Lake.events: ordered(events),
        Lake.products: ordered([{**word, "brand": chance.choice("xy")} for word in words[::2]]),
        Lake.prices: ordered(
            [{**word, "price": chance.choice([1.0, 2.0])} for word in words[1::2]]
        ),
        Lake.impressions: ordered(lists),
    }
