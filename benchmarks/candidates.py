"""`candidates`: what candidates and features of one request cost, without any server.

The index is built of the train part of a session table (or of a made-up shop), and asked for the
prefixes of its test part, in one thread, as the service asks it; then the ranker's matrix is made
of the answer. Vectors are random unless an artefact of the encoder is given: a query's arithmetic
is the same. Each source alone is timed beside the whole, in turn. Processor time, microseconds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import NAMES, result
from benchmarks.load import percentile
from candidate_service.encoder import Encoder
from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SOURCES
from contracts.columns import items_to_read, request_columns
from contracts.features import BY_NAME, RANKED, Group, matrix
from contracts.pair import KNOWN
from contracts.settings import Settings
from training.encoder.artefact import write
from training.encoder.learn import Encoded, Options
from training.encoder.model import initial_weights
from training.evaluation.files import event_file, session_table
from training.evaluation.run import END
from training.evaluation.shop import Shop
from training.frozen import FrozenItems
from training.history import Query

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
AIM_US = 700
"""Of candidates and features together, of one core."""


@click.command("candidates", help=__doc__, short_help=NAMES["candidates"])
@click.argument("table", type=FILE, required=False)
@click.option("--vectors", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="An artefact of the encoder: a folder `vectors/cutoff=...` of `evaluate --work`.")  # fmt: skip
@click.option("--requests", default=2000, show_default=True, type=click.IntRange(min=10))
@click.option("--count", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    table: Path | None, vectors: Path | None, requests: int, count: int, as_json: bool
) -> None:
    document = measure(table, vectors, requests, count)
    document["raw"] = str(result.save("candidates", document))
    document.pop("samples_us")
    print(json.dumps(document) if as_json else text(document))


def text(document: dict[str, Any]) -> str:
    lines = [
        f"{document['dataset']}: {document['items']:,} items, {document['requests']:,} requests,"
        f" {document['count']} candidates, {document['features']} features",
        *(
            f"  {name:<22} p50 {each['p50']:8.1f}  mean {each['mean']:8.1f}  p99 {each['p99']:8.1f}"
            for name, each in document["microseconds"].items()
        ),
        f"candidates and features: {document['both_us']:.0f} us of one core (aim {AIM_US});"
        f" load average {document['conditions']['load_average']}; raw: {document['raw']}",
    ]
    return "\n".join(lines)


def measure(table: Path | None, vectors: Path | None, requests: int, count: int) -> dict[str, Any]:
    """The result document."""
    where = result.conditions(Settings.from_environment())
    with tempfile.TemporaryDirectory() as scratch:
        shop = session_table(table) if table else _made_up(Path(scratch))
        index = _index(shop, vectors, Path(scratch))
        frozen = FrozenItems.of(shop.events, shop.catalogue, shop.cutoff)
        samples = _timed(shop, index, frozen, requests, count)
    summary = {name: _summary(values) for name, values in samples.items()}
    return {
        "benchmark": "candidates",
        "conditions": where,
        "dataset": shop.name,
        "items": len(index),
        "dimensions": index.manifest.dimensions,
        "vectors": "random" if vectors is None else "learned",
        "requests": len(samples["candidates"]),
        "count": count,
        "features": len(RANKED),
        "aim_us": AIM_US,
        "both_us": summary["candidates"]["mean"] + summary["features"]["mean"],
        "microseconds": summary,
        "samples_us": {
            name: [round(value, 1) for value in samples[name]]
            for name in ("candidates", "features")
        },
    }


def _made_up(folder: Path) -> Shop:
    from local_stack.data.generate import write_shop

    write_shop(folder / "shop.parquet", 7, sessions=20_000, items=5_000, days=30)
    return event_file(folder / "shop.parquet")


def _index(shop: Shop, vectors: Path | None, folder: Path) -> CandidateIndex:
    if vectors is None:
        vectors = folder / "vectors"
        write(vectors, _random(sorted(set(shop.items.tolist()))))
    manifest = build_index(
        shop.before(shop.cutoff), vectors, shop.cutoff, folder / "indexes", catalogue=shop.catalogue
    )
    return CandidateIndex.load(folder / "indexes" / manifest.version, verify=False)


def _random(ids: Sequence[str]) -> Encoded:
    """An encoder of the usual size that has learned nothing."""
    rng, options = np.random.default_rng(7), Options()
    values = rng.normal(size=(len(ids), options.members, options.dimensions)).astype(np.float32)
    values /= np.linalg.norm(values, axis=2, keepdims=True) * np.sqrt(options.members)
    weights = [initial_weights(options.dimensions, rng) for _ in range(options.members)]
    stacked = {name: np.stack([each[name] for each in weights]) for name in weights[0]}
    Encoder(stacked)  # of a shape that serving takes
    return Encoded(tuple(ids), values.reshape(len(ids), -1), stacked)


def _timed(
    shop: Shop, index: CandidateIndex, frozen: FrozenItems, requests: int, count: int
) -> dict[str, list[float]]:
    prefixes = shop.prefixes(shop.cutoff, END)
    rng = np.random.default_rng(7)
    chosen = rng.choice(len(prefixes), min(requests, len(prefixes)), replace=False)
    samples: dict[str, list[float]] = {name: [] for name in ("candidates", "features", *SOURCES)}
    for place, row in enumerate(chosen.tolist()):
        query = shop.query(prefixes[row])
        for name, work in _works(shop, index, frozen, query, prefixes[row], count).items():
            begun = time.thread_time()
            work()
            if place >= requests // 20:  # the first compile kernels and warm caches
                samples[name].append((time.thread_time() - begun) * 1e6)
    return samples


def _works(
    shop: Shop, index: CandidateIndex, frozen: FrozenItems, query: Query, prefix: tuple[int, int],
    count: int,
) -> dict[str, Callable[[], Any]]:  # fmt: skip
    """What is timed for a request, by name."""
    visited, out = list(query.visited), query.visited[-1:]
    found = index.candidates(visited, count, out)
    names = [name for name in RANKED if BY_NAME[name].group is Group.item]
    taken = frozen.take(list(items_to_read(visited, found)))
    read = {name: taken[name] for name in dict.fromkeys([*KNOWN, *names])}
    events = list(shop.session_events(prefix[0], prefix[1]))

    def features() -> Any:
        return matrix(request_columns(events, query.moment, {}, found, read), len(found), RANKED)

    def alone(source: str) -> Callable[[], Any]:
        return lambda: index.propose(source, visited, 2 * count, out)

    return {
        "candidates": lambda: index.candidates(visited, count, out),
        "features": features,
        **{source: alone(source) for source in SOURCES},
    }


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "p50": round(percentile(values, 0.5), 1),
        "mean": round(float(np.mean(values)), 1),
        "p99": round(percentile(values, 0.99), 1),
    }
