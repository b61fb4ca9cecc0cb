"""The command `python -m spark_jobs run`.

stderr tells the steps: a line each, or with --json and --progress a JSON object a line,
`{"step": name, "done": n, "of": n}`. stdout gets the summary.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from contracts.errors import NextclickError, UsageError
from contracts.fields import to_milliseconds
from contracts.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 good, 1 failed, 2 wrong use; the reason is on stderr."""
    try:
        options = _parser().parse_args(arguments)
        report = _json_line if options.json or options.progress else _plain_line
        summary = _run(options.jobs, options.now, report)
    except NextclickError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(json.dumps(summary) if options.json else _text(summary))  # noqa: T201
    return 0


def _run(
    jobs: str | None, now: str | None, report: Callable[[str, int, int], None]
) -> dict[str, Any]:
    from spark_jobs.jobs import JOBS, run_jobs  # Spark, which --help can do without

    names = list(JOBS) if jobs is None else jobs.split(",")
    return run_jobs(Settings.from_environment(), names, _moment(now), report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spark_jobs", description=__doc__)
    run = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "run", help="make the offline tables from the event lake"
    )
    run.add_argument(
        "--jobs",
        help="some of clean, sessions, catalogue, activity, queries, vectors, parted by commas; all without it",
    )
    run.add_argument(
        "--now",
        help="milliseconds since 1970 or an ISO 8601 time: what comes later does not count; without it, all counts",
    )
    run.add_argument("--json", action="store_true", help="one JSON document on stdout")
    run.add_argument("--progress", action="store_true", help="JSON lines on stderr")
    return parser


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return to_milliseconds(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise UsageError(f"--now: got {text!r}: {error}") from None


def _json_line(step: str, done: int, of: int) -> None:
    print(json.dumps({"step": step, "done": done, "of": of}), file=sys.stderr, flush=True)  # noqa: T201


def _plain_line(step: str, done: int, of: int) -> None:
    print(f"[{done}/{of}] {step}", file=sys.stderr, flush=True)  # noqa: T201


def _text(summary: dict[str, Any]) -> str:
    tables = [f"{name:<32}{rows:>12,} rows" for name, rows in summary["rows"].items()]
    refused = [
        f"refused: {reason:<23}{rows:>12,} rows" for reason, rows in summary["refused"].items()
    ]
    steps = [f"{name:<32}{seconds:>12.1f} s" for name, seconds in summary["seconds"].items()]
    return "\n".join([*tables, f"{'repeats':<32}{summary['repeats']:>12,} rows", *refused, *steps])
