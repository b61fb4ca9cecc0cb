"""`join`: point-in-time joins of our offline store and of Feast's duckdb store, through Feast's API.

The same rows are asked of the same Parquet files, in turns; each turn is a process of its own, so
that memory is its own, and its first join, which warms up, is not counted. The data are such that
the rules of both stores give the same answers (`benchmarks.join_data`): every cell is compared.
`--scale` asks ours alone, at growing sizes, and shows how time and memory grow.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import NAMES, result
from benchmarks.join_data import FEATURES, Size, feature_names, write
from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings

OURS = "feast_engine.offline_store.AsofOfflineStore"
FEAST = "duckdb"
SCALE = "300000x1000000,750000x5000000,1500000x10000000,3000000x20000000"
WORKER_SECONDS = 900
_DAY = 86_400


@click.command("join", help=__doc__, short_help=NAMES["join"])
@click.option("--asked", default=300_000, show_default=True, type=click.IntRange(1), help="Rows.")
@click.option(
    "--history", default=1_000_000, show_default=True, type=click.IntRange(1), help="Rows."
)
@click.option("--items", type=click.IntRange(1), help="Of the history; default: 100 rows an item.")
@click.option("--max-age-days", default=7.0, show_default=True, type=click.FloatRange(0.001, 3650))
@click.option(
    "--rounds", default=2, show_default=True, type=click.IntRange(1, 100), help="Turns of a store."
)
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--scale", is_flag=True, help="Ours alone at --sizes.")
@click.option("--sizes", default=SCALE, show_default=True, help="Rows asked x rows of history.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    asked: int, history: int, items: int | None, max_age_days: float, rounds: int, seed: int,
    scale: bool, sizes: str, as_json: bool,
) -> None:  # fmt: skip
    if scale:
        pairs = parse_sizes(sizes)
        document = grow([Size.of(*pair, items, seed) for pair in pairs], max_age_days, rounds)
    else:
        document = compare(Size.of(asked, history, items, seed), max_age_days, rounds)
    path = result.save("join-scale" if scale else "join", document)
    document["raw"] = str(path)
    print(json.dumps(document) if as_json else table(document))


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """UsageError for what is no list of sizes."""
    try:
        pairs = [tuple(map(int, part.split("x"))) for part in text.split(",")]
    except ValueError:
        pairs = []
    if not pairs or not all(len(pair) == 2 and min(pair) > 0 for pair in pairs):
        raise UsageError(f"--sizes: got {text!r}, expected rows asked x history, such as {SCALE}")
    return [(asked, history) for asked, history in pairs]


def compare(size: Size, max_age_days: float, rounds: int) -> dict[str, Any]:
    """Both stores in turns. ServiceError where one of them fails."""
    where = result.conditions(Settings.from_environment())
    with tempfile.TemporaryDirectory(prefix="nextclick-join-") as name:
        folder = Path(name)
        _say(f"writing {size.history:,} rows of history")
        write(folder, size)
        runs: dict[str, list[dict[str, Any]]] = {OURS: [], FEAST: []}
        for _ in range(rounds):
            for store, found in runs.items():
                found.append(_run(folder, store, max_age_days, 1))
        differing = differing_cells(_answer(folder, OURS), _answer(folder, FEAST))
    ours, feasts = (_seconds(runs[store]) for store in (OURS, FEAST))
    return {
        "benchmark": "join",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "rows_in": size.asked,
        "rows_out": runs[OURS][-1]["rows"],
        "feast_rows_out": runs[FEAST][-1]["rows"],
        "history": size.history,
        "items": size.items,
        "features": FEATURES,
        "max_age_days": max_age_days,
        "seconds": ours,
        "feast_duckdb_seconds": feasts,
        "ratio": round(feasts / ours, 2),
        "cells": size.asked * FEATURES,
        "differing": differing,
        "peak_mb": max(run["peak_mb"] for run in runs[OURS]),
        "feast_peak_mb": max(run["peak_mb"] for run in runs[FEAST]),
        "runs": {"ours": runs[OURS], "feast_duckdb": runs[FEAST]},
    }


def grow(sizes: Sequence[Size], max_age_days: float, rounds: int) -> dict[str, Any]:
    """Ours at each size: seconds, and the most memory that the process held, Feast's imports and
    the rows asked for and answered included."""
    where, steps = result.conditions(Settings.from_environment()), []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="nextclick-join-") as name:
            _say(f"{size.asked:,} x {size.history:,}")
            write(Path(name), size)
            run = _run(Path(name), OURS, max_age_days, rounds)
        rows = size.asked + size.history
        seconds = round(statistics.median(run["seconds"]), 3)
        steps.append(
            {
                "rows_in": size.asked,
                "rows_out": run["rows"],
                "history": size.history,
                "items": size.items,
                "seconds": seconds,
                "microseconds_a_row": round(1e6 * seconds / rows, 3),
                "peak_mb": run["peak_mb"],
                "before_mb": run["before_mb"],
                "bytes_a_row": round((run["peak_mb"] - run["before_mb"]) * 2**20 / rows, 1),
                "run": run,
            }
        )
        _say(f"  {seconds} s, {run['peak_mb']:,.0f} MB")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"benchmark": "join-scale", "started": started, "conditions": where, "steps": steps}


def differing_cells(ours: pa.Table, feasts: pa.Table) -> int:
    """Cells that are not the same, nulls being the same. Rows go by their number."""
    ours, feasts = (_by_row(table) for table in (ours, feasts))
    if ours["row"] != feasts["row"]:
        raise ServiceError(f"the stores gave back {len(ours):,} and {len(feasts):,} different rows")
    return sum(_unlike(ours[name], feasts[name]) for name in feature_names())


def _by_row(table: pa.Table) -> pa.Table:
    return table.sort_by("row").combine_chunks()


def _unlike(ours: pa.ChunkedArray, feasts: pa.ChunkedArray) -> int:
    equal = pc.fill_null(pc.equal(ours, feasts), False)
    both_null = pc.and_(pc.is_null(ours), pc.is_null(feasts))
    return int(np.count_nonzero(~np.asarray(pc.or_(equal, both_null))))


def _seconds(runs: Sequence[dict[str, Any]]) -> float:
    seconds: list[float] = [second for run in runs for second in run["seconds"]]
    return round(statistics.median(seconds), 4)


def _answer(folder: Path, store: str) -> pa.Table:
    return pq.read_table(folder / f"answer-{store.rsplit('.', maxsplit=1)[-1]}.parquet")


def _run(folder: Path, store: str, max_age_days: float, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.join_worker", str(folder), store]
    command += [str(max_age_days * _DAY), str(rounds)]
    try:
        done = subprocess.run(
            command, timeout=WORKER_SECONDS, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(f"the join with {store} took over {WORKER_SECONDS} s") from None
    if done.returncode:
        raise ServiceError(f"the join with {store} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(document: dict[str, Any]) -> str:
    """The result for a person."""
    where = document["conditions"]
    head = f"{where['cpu']}, {where['cores']} cores, load {where['load_average']}"
    if "steps" in document:
        lines = [
            f"{step['rows_in']:>10,} x {step['history']:>11,}  {step['seconds']:>8.2f} s"
            f"  {step['microseconds_a_row']:.2f} µs a row  {step['peak_mb']:>7,.0f} MB"
            for step in document["steps"]
        ]
        return "\n".join([head, "", *lines, "", f"raw: {document['raw']}"])
    return "\n".join(
        [
            head,
            f"{document['rows_in']:,} rows x {document['history']:,} rows of history"
            f" x {document['features']} features, {document['items']:,} items",
            "",
            f"ours          {document['seconds']:>8.3f} s  {document['peak_mb']:>7,.0f} MB",
            f"Feast duckdb  {document['feast_duckdb_seconds']:>8.3f} s"
            f"  {document['feast_peak_mb']:>7,.0f} MB",
            f"{document['ratio']} times faster, {document['differing']:,} of"
            f" {document['cells']:,} cells differ",
            "",
            f"raw: {document['raw']}",
        ]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
