"""`online-write`: rows a second into the online store, by the bulk writer and by Feast's own.

A Redis of its own is started as the embedded stack starts it (append-only file, a sync a second).
The bulk writer takes an Arrow table of float32 features and writes it with the rule that no older
row replaces a newer one; Feast's store takes a part of the same table, as `feast materialize` does
it. Both leave the same bytes. Everything is read back and compared.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import numpy as np
import psutil

from benchmarks import NAMES, result
from benchmarks.valkey import valkey
from contracts.errors import ServiceError
from contracts.features import DType
from contracts.settings import Settings

VIEW = "benchmark"
PROJECT = "benchmark"
EVENT_TIME = datetime(2026, 1, 1, tzinfo=UTC)
LIFE_SECONDS = 86_400


@click.command("online-write", help=__doc__, short_help=NAMES["online-write"])
@click.option("--rows", default=200_000, show_default=True, type=click.IntRange(1))
@click.option("--features", default=16, show_default=True, type=click.IntRange(1, 500))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--feast-rows", default=5000, show_default=True, type=click.IntRange(1), help="Feast's part."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    rows: int, features: int, rounds: int, feast_rows: int, as_json: bool
) -> None:
    document = measure(rows, features, rounds, min(feast_rows, rows))
    document["raw"] = str(result.save("online-write", document))
    print(json.dumps(document) if as_json else text(document))


def text(document: dict[str, Any]) -> str:
    each = ", ".join(f"{rate:,.0f}" for rate in document["rounds"])
    return (
        f"{document['rows_per_second']:,.0f} rows/s of {document['features']} features (rounds: {each})\n"
        f"Feast's own store: {document['feast_rows_per_second']:,.0f} rows/s, "
        f"{document['ratio']:.0f} times slower\n"
        f"processor: client {document['client_us_per_row']:.1f}, server "
        f"{document['server_us_per_row']:.1f} microseconds a row\n"
        f"{document['rows_out']:,} of {document['rows_in']:,} rows read back, "
        f"{document['differing']} cells differ; {document['older_refused']:,} older rows refused\n"
        f"load average {document['conditions']['load_average']}, raw: {document['raw']}"
    )


def measure(rows: int, features: int, rounds: int, feast_rows: int) -> dict[str, Any]:
    """The result document. ServiceError where the Redis of its own does not start."""
    from feast_engine.connection import connect

    names = [f"f{number}" for number in range(features)]
    table = make_table(rows, names)
    where = result.conditions(Settings.from_environment())
    with valkey() as (settings, process), connect(settings) as client:
        feast_rate, feast_bytes = _by_feast(settings, client, table.slice(0, feast_rows), names)
        client.flushall()
        done = [_timed(process, rows, lambda: _write(client, table, names)) for _ in range(rounds)]
        older = _write(client, _moved(table, -timedelta(milliseconds=1)), names).older
        found, differing = _compare(client, table, names)
        differing += _other_bytes(client, feast_bytes)
    rates = [each["rate"] for each in done]
    return {
        "benchmark": "online-write",
        "conditions": where,
        "rows_in": rows,
        "rows_out": found,
        "features": features,
        "rows_per_second": max(rates),
        "rounds": rates,
        "feast_rows": feast_rows,
        "feast_rows_per_second": feast_rate,
        "ratio": max(rates) / feast_rate,
        "client_us_per_row": min(each["client"] for each in done),
        "server_us_per_row": min(each["server"] for each in done),
        "differing": differing,
        "older_refused": older,
    }


def make_table(rows: int, names: list[str]) -> Any:
    """Random values; a hundredth of them is missing in the last column."""
    import pyarrow as pa

    numbers = np.random.default_rng(7)
    columns = {name: numbers.random(rows, dtype=np.float32) for name in names}
    columns[names[-1]][::100] = np.nan
    times = np.full(rows, int(EVENT_TIME.timestamp() * 1_000_000))
    return pa.table(
        {
            "item_id": pa.array([f"item{number:08d}" for number in range(rows)]),
            "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            **columns,
        }
    )


def _moved(table: Any, by: timedelta) -> Any:
    import pyarrow.compute as pc

    place = table.schema.get_field_index("event_timestamp")
    return table.set_column(place, "event_timestamp", pc.add(table["event_timestamp"], by))


def _layout(names: list[str]) -> Any:
    """Of a view of its own, laid out as Feast would."""
    import mmh3

    from feast_engine.layout import layout_of

    return replace(
        layout_of("item_activity", PROJECT),
        timestamp=f"_ts:{VIEW}".encode(),
        fields={n: struct.pack("<I", mmh3.hash(f"{VIEW}:{n}", signed=False)) for n in names},
        types=dict.fromkeys(names, DType.float32),
    )


def _write(client: Any, table: Any, names: list[str]) -> Any:
    from feast_engine import guard
    from feast_engine.batch_engine import BATCH_ROWS
    from feast_engine.columnar import encode_batch

    layout = _layout(names)
    batches = table.to_batches(max_chunksize=BATCH_ROWS)
    return guard.write(client, (encode_batch(layout, batch, LIFE_SECONDS) for batch in batches))


def _timed(server: psutil.Process, rows: int, work: Callable[[], Any]) -> dict[str, float]:
    """Rows a second, and microseconds of processor time a row."""
    before = _cpu(psutil.Process()), _cpu(server)
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    client, serving = _cpu(psutil.Process()) - before[0], _cpu(server) - before[1]
    return {"rate": rows / seconds, "client": client / rows * 1e6, "server": serving / rows * 1e6}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _by_feast(
    settings: Settings, client: Any, table: Any, names: list[str]
) -> tuple[float, dict[bytes, Any]]:
    """Rows a second of Feast's own Redis store, and the hashes that it left."""
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.infra.online_stores.redis import RedisOnlineStore
    from feast.repo_config import RepoConfig
    from feast.types import Float32, String
    from feast.utils import _convert_arrow_to_proto

    config = RepoConfig(
        project=PROJECT, provider="local", registry=str(settings.home / "registry.db"),
        online_store={"type": "redis", "connection_string": settings.redis, "key_ttl_seconds": LIFE_SECONDS},
        entity_key_serialization_version=3,
    )  # fmt: skip
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    fields = [Field(name="item_id", dtype=String), *(Field(name=n, dtype=Float32) for n in names)]
    source = FileSource(path="none.parquet", timestamp_field="event_timestamp")
    view = FeatureView(name=VIEW, entities=[item], schema=fields, source=source)
    store = RedisOnlineStore()
    start = time.perf_counter()
    data = _convert_arrow_to_proto(table, view, {"item_id": ValueType.STRING})
    store.online_write_batch(config, view, data, None)
    seconds = time.perf_counter() - start
    with suppress(AttributeError):
        store._get_client(config.online_store).close()
    return table.num_rows / seconds, {
        key: client.hgetall(key) for key in client.scan_iter(count=1000)
    }


def _compare(client: Any, table: Any, names: list[str]) -> tuple[int, int]:
    """Rows that are there, and cells that differ from the table's, the event time among them."""
    from feast_engine.decode import decode_columns, decode_timestamps, table_of
    from feast_engine.roundtrip import Many, exchange

    layout = _layout(names)
    fields = [layout.timestamp, *layout.fields.values()]
    keys = layout.keys(table["item_id"].to_pylist())
    pieces = [
        Many(b"HMGET", keys[place : place + 500], fields) for place in range(0, len(keys), 500)
    ]
    replies = [row for rows in exchange(client, pieces) for row in rows]
    stored = table_of(replies, len(fields))
    if client.dbsize() != len(keys):
        raise ServiceError(f"{client.dbsize():,} keys are there, expected {len(keys):,}")
    differing = 0
    columns = decode_columns(DType.float32, stored, range(1, len(fields)))
    for name, column in zip(names, columns, strict=True):
        given = table[name].to_numpy()
        differing += int((~((column == given) | (np.isnan(column) & np.isnan(given)))).sum())
    stamps = decode_timestamps(stored, 0)
    differing += int((stamps != int(EVENT_TIME.timestamp() * 1000)).sum())
    return int((stamps != -1).sum()), differing


def _other_bytes(client: Any, feasts: dict[bytes, Any]) -> int:
    """Cells that Feast would have stored as other bytes."""
    return sum(_differing(client.hgetall(key), cells) for key, cells in feasts.items())


def _differing(ours: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> int:
    return sum(1 for name in _names(ours, theirs) if ours.get(name) != theirs.get(name))


def _names(*rows: dict[bytes, bytes]) -> Iterator[bytes]:
    yield from set().union(*rows)
