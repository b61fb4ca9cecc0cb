"""`parity` and `replay`: what was served, computed again and explained."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from contracts.errors import UsageError
from contracts.fields import to_milliseconds
from local_stack.cli.main import emit, json_option, settings


def add_to(cli: click.Group) -> None:
    cli.add_command(parity)
    cli.add_command(replay)


def _number(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if math.isnan(value):  # it lies in every range
        raise click.BadParameter("expected a number from 0 to 1, got nan")
    return value


@click.command()
@click.option("--since", help="Only answers from this time on: ISO 8601, or milliseconds.")
@click.option("--until", help="Only answers before this time.")
@click.option(
    "--hours", type=click.FloatRange(min=0, min_open=True), help="Only answers of the last hours."
)
@click.option(
    "--sample",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="So many answers at most, drawn by hash; 0: all.",
)
@click.option(
    "--lag-ms",
    default=2000,
    show_default=True,
    type=click.IntRange(0, 86_400_000),
    help="What became known or visible so shortly before a question may have been missed by it.",
)
@click.option(
    "--threshold",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    callback=_number,
    help="Share of cells (and of scores) that may differ.",
)
@click.option(
    "--examples",
    default=3,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="Differing cells that are shown of each feature.",
)
@click.option(
    "--offline",
    help="Offline tables made from the lake before, after the answers; without it they are made anew.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Leave the tables that are made in this folder, for --offline.",
)
@json_option
def parity(
    since: str | None,
    until: str | None,
    hours: float | None,
    sample: int,
    lag_ms: int,
    threshold: float,
    examples: int,
    offline: str | None,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Compute every served feature again from the lake and compare it cell by cell.

    Exit code 3 when a larger share than the threshold differs, 1 when nothing was served. Status
    and metrics tell of the last run that left nothing out: with --since or --hours, but without
    --until, --sample and --offline.
    """
    from local_stack.cli.progress import StepProgress
    from local_stack.proof import STEPS, Proof, prove
    from local_stack.show_parity import parity_text
    from monitoring.served import Selection

    if hours is not None and since is not None:
        raise UsageError("--hours and --since both say where to begin: give one of them")
    begin = _hours_ago(hours) if hours is not None else _moment("--since", since, 0)
    selection = Selection(begin, _moment("--until", until, 1 << 62), sample)
    if selection.since >= selection.until:
        raise UsageError("--since and --until: no time lies between them")
    _check_folder(offline)
    proof = Proof(selection, lag_ms, threshold, examples, offline, keep and keep.absolute())
    with StepProgress(STEPS) as progress:
        report = prove(settings(), proof, progress)
    emit(report.as_dict()) if as_json else click.echo(parity_text(report))
    sys.exit(report.exit_code)


def _check_folder(offline: str | None) -> None:
    if offline and "://" not in offline and not Path(offline).is_dir():
        raise UsageError(f"--offline: there is no folder {offline}")


def _hours_ago(hours: float) -> int:
    return int((datetime.now(UTC) - timedelta(hours=hours)).timestamp() * 1000)


def _moment(option: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    try:
        return to_milliseconds(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"{option}: got {text!r}: {error}") from None


@click.command()
@click.argument("request_id")
@click.option("--item", help="Only this item of the answer, with all its features.")
@json_option
def replay(request_id: str, item: str | None, as_json: bool) -> None:
    """Answer a past recommendation again, and say why each item stood where it did."""
    from local_stack.show_parity import replay_text
    from monitoring.replay import replay as answer_again

    found = answer_again(settings(), request_id, item)
    emit(found.as_dict()) if as_json else click.echo(replay_text(found, whole=item is not None))
    sys.exit(0 if found.same else 3)
