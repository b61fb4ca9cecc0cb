"""`online-read`: a read of many items' features, by the reader and by Feast's SDK, in turn.

A Redis of its own is started as the embedded stack starts it. All read the same rows of the views
item_catalogue and item_activity; every cell is compared. Feast's time is that of
`get_online_features(...).to_dict()`, through Feast's own Redis store and through ours, which
applies the maximum age as the reader does; the ratio is to Feast's own. Ours is the time of the
columns as the ranker takes them.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import click
import numpy as np
import psutil

from benchmarks import NAMES, result
from benchmarks.load import percentile
from benchmarks.valkey import valkey
from contracts.features import DType, of_view
from contracts.settings import Settings

CATALOGUE = ("price", "category_id", "brand_id", "available")
Wanted = dict[str, tuple[str, ...]]
"""Features by view."""


@click.command("online-read", help=__doc__, short_help=NAMES["online-read"])
@click.option("--items", default=200, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--features", default=16, show_default=True, type=click.IntRange(1, 16))
@click.option("--reads", default=200, show_default=True, type=click.IntRange(1), help="Of each.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(items: int, features: int, reads: int, as_json: bool) -> None:  # noqa: N802  # the name that every benchmark has
    document = measure(items, features, reads)
    samples = document.pop("samples")
    document["raw"] = str(result.save("online-read", {**document, "samples": samples}))
    print(json.dumps(document) if as_json else text(document))


def text(document: dict[str, Any]) -> str:
    ways = {"reader": "reader", "feast": "Feast", "feast_guarded": "Feast, our store"}
    lines = [
        f"{document['rows_in']} items x {document['features']} features: {document['ratio']:.1f} times faster than"
        f" Feast with its own store, {document['ratio_guarded']:.1f} times than with ours",
        *(
            f"{name:<17} p50 {each['p50_ms']:.2f} ms, p99 {each['p99_ms']:.2f} ms; processor: client "
            f"{each['client_ms']:.2f}, server {each['server_ms']:.2f} ms a read"
            for way, name in ways.items()
            for each in (document[way],)
        ),
        f"{document['cells']:,} cells compared, {document['differing']} differ",
        f"load average {document['conditions']['load_average']}, raw: {document['raw']}",
    ]
    return "\n".join(lines)


def measure(items: int, features: int, reads: int) -> dict[str, Any]:
    """The result document. ServiceError where the Redis of its own does not start."""
    from feast_engine.connection import connect
    from feast_engine.store import apply, open_store

    where = result.conditions(Settings.from_environment())
    activity = tuple(feature.name for feature in of_view("item_activity"))
    names = [*(("item_activity", n) for n in activity), *(("item_catalogue", n) for n in CATALOGUE)]
    wanted: Wanted = {}
    for view, name in names[:features]:
        wanted[view] = (*wanted.get(view, ()), name)
    ids = [f"item{number:08d}" for number in range(items)]
    with valkey() as (settings, server), connect(settings) as client, redirect_stdout(StringIO()):
        apply(settings)
        _fill(settings, client, ids[: max(1, len(ids) - len(ids) // 20)])  # the others are unknown
        by_feast = _feast_read(_plain_store(settings), wanted, ids)
        by_guarded = _feast_read(open_store(settings), wanted, ids)
        by_reader = _reader_read(settings, client, wanted, ids)
        counts = [_compare(by_reader(), read(), wanted) for read in (by_feast, by_guarded)]
        ours, feasts, guarded = _in_turn(server, reads, by_reader, by_feast, by_guarded)
    median = percentile(ours["samples"], 0.5)
    return {
        "benchmark": "online-read",
        "conditions": where,
        "rows_in": items,
        "rows_out": min(rows for rows, _ in counts),
        "features": features,
        "reads": reads,
        "ratio": percentile(feasts["samples"], 0.5) / median,
        "ratio_guarded": percentile(guarded["samples"], 0.5) / median,
        "cells": items * features,
        "differing": sum(differing for _, differing in counts),
        "reader": _summary(ours),
        "feast": _summary(feasts),
        "feast_guarded": _summary(guarded),
        "samples": {
            "reader_ms": ours["samples"],
            "feast_ms": feasts["samples"],
            "feast_guarded_ms": guarded["samples"],
        },
    }


def _plain_store(settings: Settings) -> Any:
    """The same `feast.FeatureStore` with Feast's own Redis store."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    from feast_engine.config import REPOSITORY, store_yaml

    lines = store_yaml(settings)
    config = RepoConfig(**{**lines, "online_store": {**lines["online_store"], "type": "redis"}})
    config.repo_path = REPOSITORY
    return FeatureStore(config=config)


def _fill(settings: Settings, client: Any, ids: list[str]) -> None:
    from feast_engine.writer import OnlineWriter

    numbers = np.random.default_rng(7)
    for view in ("item_catalogue", "item_activity"):
        kinds: dict[DType, Any] = {
            DType.float32: numbers.random(len(ids), dtype=np.float32),
            DType.int64: numbers.integers(0, 2**52, len(ids)).tolist(),
            DType.string: [f"shop.{name}" for name in ids],
        }
        columns = {feature.name: kinds[feature.dtype] for feature in of_view(view)}
        times = [int(time.time() * 1000)] * len(ids)
        OnlineWriter(settings, client).write(view, ids, times, columns)


def _feast_read(store: Any, wanted: Wanted, ids: list[str]) -> Callable[[], dict[str, list[Any]]]:
    features = [f"{view}:{name}" for view, names in wanted.items() for name in names]
    rows = [{"item_id": name} for name in ids]

    def read() -> dict[str, list[Any]]:
        answer: dict[str, list[Any]] = store.get_online_features(features, rows).to_dict()
        return answer

    return read


def _reader_read(
    settings: Settings, client: Any, wanted: Wanted, ids: list[str]
) -> Callable[[], dict[str, Any]]:
    from feast_engine.reader import ReadRequest, SyncReader

    reader = SyncReader(settings, client)
    requests = [ReadRequest(view, ids, names) for view, names in wanted.items()]

    def read() -> dict[str, Any]:
        found = reader.read(requests, int(time.time() * 1000))
        return {name: column for rows in found for name, column in rows.columns.items()}

    return read


def _compare(ours: dict[str, Any], feasts: dict[str, list[Any]], wanted: Wanted) -> tuple[int, int]:
    """Rows that came back, and cells that differ; Feast's None is what the reader calls missing."""
    differing = 0
    names = [name for each in wanted.values() for name in each]
    for name in names:
        missing = 0 if ours[name].dtype == np.int64 else np.nan
        theirs = np.array([missing if v is None else v for v in feasts[name]], ours[name].dtype)
        differing += int((~np.equal(ours[name], theirs) & ~(_nan(ours[name]) & _nan(theirs))).sum())
    return min(len(ours[name]) for name in names), differing


def _nan(column: Any) -> Any:
    return np.isnan(column.astype(np.float64))


def _in_turn(
    server: psutil.Process, reads: int, *works: Callable[[], Any]
) -> tuple[dict[str, Any], ...]:
    """Milliseconds of each read, and all processor time of client and server, for each."""
    found: tuple[dict[str, Any], ...] = tuple(
        {"samples": [], "client": 0.0, "server": 0.0} for _ in works
    )
    gc.collect()
    for _ in range(max(1, reads // 20)):
        for work, seen in zip(works, found, strict=True):
            before = _cpu(psutil.Process()), _cpu(server)
            for _ in range(min(reads, 20)):
                start = time.perf_counter()
                work()
                seen["samples"].append((time.perf_counter() - start) * 1000)
            seen["client"] += _cpu(psutil.Process()) - before[0]
            seen["server"] += _cpu(server) - before[1]
    return found


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _summary(seen: dict[str, Any]) -> dict[str, float]:
    return {
        "p50_ms": percentile(seen["samples"], 0.5),
        "p99_ms": percentile(seen["samples"], 0.99),
        "client_ms": seen["client"] / len(seen["samples"]) * 1000,
        "server_ms": seen["server"] / len(seen["samples"]) * 1000,
    }
