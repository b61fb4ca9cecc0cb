"""`up`, `down`, `status`, `logs`, `demo`, `drift`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from local_stack.cli.main import emit, json_option, say, settings


def add_to(cli: click.Group) -> None:
    for command in (up, down, status, logs, demo, drift):
        cli.add_command(command)


@click.command()
@click.option("--only", help="Just these services, parted by commas.")
@json_option
def up(only: str | None, as_json: bool) -> None:
    """Start the embedded stack; harmless when it runs."""
    from local_stack.stack import status as read_status
    from local_stack.stack import up as start

    start(settings(), only.split(",") if only else None, say)
    document = read_status(settings())
    if as_json:
        emit(document)
    else:
        _print_status(document)


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop the embedded stack; no process and no shared memory is left."""
    from local_stack.stack import down as stop

    stop(settings(), say)
    if as_json:
        emit({"stopped": True})


@click.command()
@json_option
def status(as_json: bool) -> None:
    """What is live and what runs: address, process, memory, version; how far the consumer is
    behind; the online store's memory."""
    from contracts.parity import last_parity
    from feast_engine.memory import lines, memory_use
    from local_stack.lag import behind, behind_line
    from local_stack.show_parity import parity_line
    from local_stack.stack import status as read_status

    proved = last_parity(settings())
    document = {
        **read_status(settings()),
        "consumer": behind(settings()),
        "memory": memory_use(settings()),
        "parity": None if proved is None else proved.model_dump(),
    }
    if as_json:
        emit(document)
    else:
        _print_status(document)
        click.echo(behind_line(document["consumer"]))
        for line in lines(document["memory"]):
            click.echo(line)
        click.echo(parity_line(proved))


def _print_status(document: dict[str, Any]) -> None:
    click.echo(f"release: {document['release'] or 'none yet'}")
    for service in document["services"]:
        state = "ready" if service["ready"] else "down"
        memory = f"{service['rss_mb']:.0f} MB" if service["rss_mb"] else ""
        line = f"{service['name']:<9} {state:<6} {service['url']:<28} {memory:>8}  {service['version'] or ''}"
        click.echo(line.rstrip())


@click.command()
@click.argument("service")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
@json_option
def logs(service: str, lines: int, follow: bool, as_json: bool) -> None:
    """The log of a service (or of supervisor, spark)."""
    from local_stack.stack import logs as read_logs

    if as_json and follow:
        raise click.UsageError("--json is one document: it does not go with --follow")
    if as_json:
        emit({"service": service, "lines": list(read_logs(settings(), service, lines))})
        return
    for line in read_logs(settings(), service, lines, follow):
        click.echo(line)


@click.command()
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    help="A shop's own events, Parquet or CSV; without it a shop is generated.",
)
@click.option(
    "--map", "mapping", help="Columns of a file of another shape: session=…,item=…,time=…,type=…"
)
@json_option
def demo(events: Path | None, mapping: str | None, as_json: bool) -> None:
    """Everything, from nothing to a ranked answer of the running endpoint."""
    from local_stack.cli.data import parse_mapping
    from local_stack.cli.progress import StepProgress
    from local_stack.demo import STEPS, run_demo
    from local_stack.show import demo_text

    with StepProgress(STEPS) as progress:
        result = run_demo(settings(), events, parse_mapping(mapping), progress)
    if as_json:
        emit(result)
    else:
        click.echo(demo_text(result))


@click.group()
def drift() -> None:
    """Served features and scores beside what the ranker was trained on."""


@drift.command("report")
@click.option("--release", help="The release to look at; without it the live one.")
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), help="Only answers of the last hours."
)
@json_option
def drift_report(release: str | None, hours: float | None, as_json: bool) -> None:
    """Compare by Evidently; exit code 3 when a column drifted, 1 when too little was served."""
    from monitoring.drift import drift_report as compare

    since = None if hours is None else datetime.now(UTC) - timedelta(hours=hours)
    found = compare(settings(), release=release, since=since, report=say)
    if as_json:
        emit(found.as_dict())
    else:
        click.echo("\n".join(found.lines()))
    sys.exit(found.exit_code)
