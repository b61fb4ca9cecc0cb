"""`serve`: latency and processor time of POST /v1/recommend, beside an empty route of the same server.

At each rate the empty route (GET /livez) and the real one take turns, round by round, so that
whatever else the machine does falls on both. See `benchmarks.load` for how latency is counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import click

from benchmarks import NAMES, cpu, result
from benchmarks.load import (
    CONNECTIONS,
    Samples,
    Target,
    no_long_collections,
    open_client,
    open_loop,
    percentile,
)
from benchmarks.sessions import request_bodies
from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings

SETTLE_SECONDS = 0.5
"""After a round: what is left to do for its answers (impressions, events) belongs to it."""
IDLE_SECONDS = 3.0


@click.command("serve", help=__doc__, short_help=NAMES["serve"])
@click.option(
    "--rates", default="50,100,200", show_default=True, help="Requests a second, by comma."
)
@click.option(
    "--seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="At each rate and route.",
)
@click.option(
    "--warmup",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="Seconds before, at the first rate.",
)
@click.option(
    "--rounds",
    default=2,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Turns that the two routes take at a rate.",
)
@click.option("--k", default=20, show_default=True, type=click.IntRange(1), help="Items asked for.")
@click.option(
    "--carry",
    default=5,
    show_default=True,
    type=click.IntRange(0),
    help="Events that a request carries.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    rates: str, seconds: float, warmup: float, rounds: int, k: int, carry: int, as_json: bool
) -> None:  # fmt: skip
    settings = Settings.from_environment()
    load = {"rates": parse_rates(rates), "seconds": seconds, "warmup": warmup, "rounds": rounds}
    document = measure(settings, load, k, carry)
    raw = document.pop("samples")
    path = result.save("serve", {**document, "samples": raw})
    document["raw"] = str(path)
    print(json.dumps(document) if as_json else table(document))


def parse_rates(text: str) -> list[float]:
    """UsageError for what is no list of positive numbers."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 100_000 for rate in rates):
        raise UsageError(f"--rates: got {text!r}, expected requests a second, such as 50,100,200")
    return rates


def measure(
    settings: Settings, load: dict[str, Any], k: int = 20, carry: int = 5
) -> dict[str, Any]:
    """The result document, with the raw latencies under `samples`. ServiceError without a stack."""
    from local_stack.stack import status

    bodies, origin = request_bodies(settings, k, carry)
    if origin == "synthetic":
        _say("no events in the lake: made-up sessions, cold answers (./nextclick data import)")
    targets = (
        Target("empty", f"{settings.api}/livez"),
        Target("recommend", f"{settings.api}/v1/recommend", bodies),
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = result.conditions(settings, status(settings))
    with no_long_collections():
        results, samples, idle = asyncio.run(_run(settings, targets, load))
    more = {"connections": CONNECTIONS, "k": k, "carry": carry, "sessions": origin}
    return {
        "benchmark": "serve",
        "started": now,
        "conditions": where,
        "load": {**load, **more},
        "idle_cpu_percent": idle,
        "results": results,
        "samples": samples,
    }


Results = tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, float]]


async def _run(settings: Settings, targets: Sequence[Target], load: dict[str, Any]) -> Results:
    results, raw = [], []
    async with open_client() as client:
        for target in targets:
            await _probe(client, target)
        idle = await _idle(settings)
        for target in targets:
            await open_loop(client, target, load["rates"][0], load["warmup"])
        for rate in load["rates"]:
            for target, samples, used in await _at_rate(settings, client, targets, rate, load):
                results.append(summary(target.name, rate, samples, used))
                raw.append({"target": target.name, "rate": rate, "latency_ms": _rounded(samples)})
                _say(line(results[-1]))
    return results, raw, idle


async def _probe(client: aiohttp.ClientSession, target: Target) -> None:
    """One request; ServiceError where it is not answered well."""
    samples = await open_loop(client, target, rate=1, seconds=1)
    if not samples.answers:
        (problem,) = samples.errors
        raise ServiceError(
            f"no answer from {target.url} ({problem}): start the stack with ./nextclick up"
        )


async def _idle(settings: Settings) -> dict[str, float]:
    """Share of a core that each service uses with nothing to do, in percent."""
    before = cpu.look(settings)
    await asyncio.sleep(IDLE_SECONDS)
    used = cpu.spent(before, cpu.look(settings))
    return {name: round(100 * seconds / IDLE_SECONDS, 2) for name, seconds in used.items()}


async def _at_rate(
    settings: Settings,
    client: aiohttp.ClientSession,
    targets: Sequence[Target],
    rate: float,
    load: dict[str, Any],
) -> list[tuple[Target, Samples, dict[str, float]]]:
    """Each target's samples at a rate and the seconds of processor time that went into them."""
    found: list[tuple[Target, Samples, dict[str, float]]] = [(t, Samples(), {}) for t in targets]
    for _ in range(load["rounds"]):
        for place, (target, samples, used) in enumerate(found):
            before = cpu.look(settings)
            samples.add(
                await open_loop(client, target, rate, load["seconds"] / load["rounds"], samples.due)
            )
            await asyncio.sleep(SETTLE_SECONDS)
            now = cpu.spent(before, cpu.look(settings))
            found[place] = target, samples, cpu.added(used, now)
    return found


def _rounded(samples: Samples) -> list[float]:
    return [round(latency, 3) for latency in samples.latency]


def summary(name: str, rate: float, samples: Samples, used: dict[str, float]) -> dict[str, Any]:
    """Figures of a load: milliseconds, shares from 0 to 1; None where there was no answer."""
    answers = samples.answers
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        "target": name,
        "rate_asked": rate,
        "rate_reached": round(answers / samples.seconds, 2),
        "answers": answers,
        "errors": dict(samples.errors),
        "latency_ms": _figures(samples.latency, shares),
        "lateness_ms": _figures(samples.lateness, shares),
        "generator_late": samples.late,
        "degraded_share": round(samples.degraded_answers / answers, 4) if answers else None,
        "degraded": dict(samples.degraded),
        "cpu_ms_per_answer": {
            service: round(1000 * seconds / answers, 3) if answers else None
            for service, seconds in sorted(used.items())
        },
    }


def _figures(values: Sequence[float], shares: dict[str, float]) -> dict[str, float | None]:
    return {
        name: round(percentile(values, share), 3) if values else None
        for name, share in shares.items()
    }


# --- for a person ------------------------------------------------------------------------------


def line(found: dict[str, Any]) -> str:
    """One result on one line."""
    latency = found["latency_ms"]
    figures = " ".join(f"{name} {_number(value)}" for name, value in latency.items())
    late = " GENERATOR LATE" if found["generator_late"] else ""
    return (
        f"{found['target']:<10} asked {found['rate_asked']:g}/s reached {found['rate_reached']:g}/s"
        f" {figures} ms, {sum(found['errors'].values())} errors{late}"
    )


def table(document: dict[str, Any]) -> str:
    """The result for a person."""
    where = document["conditions"]
    names = sorted({name for found in document["results"] for name in found["cpu_ms_per_answer"]})
    head = [
        "route",
        "asked/s",
        "reached/s",
        "p50",
        "p90",
        "p99",
        "max",
        "late p99",
        "errors",
        "degraded",
    ]
    rows = [_row(found, names) for found in document["results"]]
    return "\n".join(
        [
            f"{where['cpu']}, {where['cores']} cores, release {where['release']},"
            f" sessions: {document['load']['sessions']}",
            "",
            "milliseconds from the time the request was due; late: of it, by the load generator",
            *_aligned([head, *(row[0] for row in rows)]),
            "",
            "milliseconds of processor time an answer",
            *_aligned([["route", "asked/s", *names], *(row[1] for row in rows)]),
            "",
            f"raw: {document['raw']}",
        ]
    )


def _row(found: dict[str, Any], services: Sequence[str]) -> tuple[list[str], list[str]]:
    label = [found["target"], f"{found['rate_asked']:g}"]
    latency = [_number(found["latency_ms"][name]) for name in ("p50", "p90", "p99", "max")]
    share = found["degraded_share"]
    times = [
        *label,
        f"{found['rate_reached']:g}",
        *latency,
        _number(found["lateness_ms"]["p99"]),
        str(sum(found["errors"].values())),
        "-" if share is None else f"{share:.1%}",
    ]
    return times, [*label, *(_number(found["cpu_ms_per_answer"].get(name)) for name in services)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
