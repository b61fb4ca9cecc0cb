"""`data generate` and `data import`."""

from __future__ import annotations

from pathlib import Path

import click

from contracts.errors import UsageError
from local_stack.cli.main import emit, json_option, say, settings


def add_to(cli: click.Group) -> None:
    cli.add_command(data)


@click.group()
def data() -> None:
    """Events: a shop's own, or a generated one."""


@data.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sessions", default=20_000, show_default=True, type=click.IntRange(1, 10_000_000))
@click.option("--items", default=2_000, show_default=True, type=click.IntRange(10, 10_000_000))
@click.option("--days", default=42, show_default=True, type=click.IntRange(1, 3650))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@json_option
def generate(file: Path, sessions: int, items: int, days: int, seed: int, as_json: bool) -> None:
    """Write the events of a made-up shop with a planted, documented structure to FILE (Parquet)."""
    from local_stack.data.generate import write_shop

    rows = write_shop(file, seed=seed, sessions=sessions, items=items, days=days)
    if as_json:
        emit({"file": str(file), "rows": rows})
    else:
        say(f"{rows:,} events in {file}; next: ./nextclick data import {file}")


@data.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--map", "mapping", help="Columns of a file of another shape: session=…,item=…,time=…,type=…"
)
@click.option(
    "--shift-to-now",
    is_flag=True,
    help="Move all times by whole days, so that the newest event is less than a day old.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until the consumer has taken them.",
)
@json_option
def import_file(
    file: Path, mapping: str | None, shift_to_now: bool, wait: bool, as_json: bool
) -> None:
    """Send the events of FILE (Parquet or CSV) to Kafka; what is wrong goes to the dead letters."""
    from local_stack.cli.progress import StepProgress
    from local_stack.ingest import ingest

    with StepProgress(2 if wait else 1) as progress:
        summary = ingest(settings(), file, progress, parse_mapping(mapping), shift_to_now, wait)
    emit(summary.as_dict()) if as_json else say(summary.text())


def parse_mapping(text: str | None) -> dict[str, str] | None:
    """`session=a,item=b` as a dictionary; UsageError for anything else."""
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name and equals and column for name, equals, column in pairs):
        raise UsageError(
            f"--map: got {text!r}, expected session=COLUMN,item=COLUMN,time=COLUMN,type=COLUMN"
        )
    names = [name.strip() for name, _, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--map: {', '.join(twice)} named twice; a field comes from one column")
    return {name: column.strip() for name, (_, _, column) in zip(names, pairs, strict=True)}
