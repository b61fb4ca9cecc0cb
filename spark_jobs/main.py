"""The commands `python -m spark_jobs run`, `stream` and `join`. Settings are NEXTCLICK_* variables.

run: stderr tells the steps: a line each, or with --json and --progress a JSON object a line,
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
        print(_COMMANDS[options.command](options))  # noqa: T201
    except NextclickError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _stream(options: argparse.Namespace) -> str:
    from spark_jobs.stream_service import run_stream

    return json.dumps(run_stream(Settings.from_environment(), options.once))


def _join(options: argparse.Namespace) -> str:
    from spark_jobs.join import run_join

    found = run_join(
        Settings.from_environment(), options.entities, options.view, options.out, options.moment
    )
    return json.dumps(found) if options.json else _join_text(found)


def _run_text(options: argparse.Namespace) -> str:
    report = _json_line if options.json or options.progress else _plain_line
    summary = _run(options.jobs, options.now, report)
    return json.dumps(summary) if options.json else _text(summary)


def _run(
    jobs: str | None, now: str | None, report: Callable[[str, int, int], None]
) -> dict[str, Any]:
    from spark_jobs.jobs import default_jobs, run_jobs  # Spark, which --help can do without

    settings = Settings.from_environment()
    names = default_jobs(settings) if jobs is None else jobs.split(",")
    return run_jobs(settings, names, _moment(now), report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spark_jobs", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_stream(commands)
    _add_join(commands)
    run = commands.add_parser("run", help="make the offline tables from the event lake")
    run.add_argument(
        "--jobs",
        help="some of clean, sessions, catalogue, activity, queries, windows, parted by commas; without it all, windows where NEXTCLICK_STREAM is on",
    )
    run.add_argument(
        "--now",
        help="milliseconds since 1970 or an ISO 8601 time: what comes later does not count; without it, all counts",
    )
    run.add_argument("--json", action="store_true", help="one JSON document on stdout")
    run.add_argument("--progress", action="store_true", help="JSON lines on stderr")
    return parser


_STREAM = """Windows over items and categories from the Kafka topics events and impressions, to the
offline tables item_windows and category_windows and to the online store. It begins where the last
`run` of the job windows ended. On a cluster: NEXTCLICK_SPARK_MASTER names it, NEXTCLICK_KAFKA the
brokers, NEXTCLICK_REDIS the online store; NEXTCLICK_STREAM_STATE and NEXTCLICK_OFFLINE are s3a://
addresses, whose connector and keys stand in Spark's own spark-defaults.conf. One stream may run
over a state folder at a time. It can be killed at any moment and goes on where it was.
"""


def _add_stream(commands: Any) -> None:
    stream = commands.add_parser(
        "stream", help="keep the windows that move, from Kafka", description=_STREAM
    )
    stream.add_argument("--once", action="store_true", help="one look into Kafka, then end")


_JOIN = """A training set for which one machine is too small: each row of a Parquet table once, with
the features of stored views as they were known at its moment (the same rows that Feast's
get_historical_features gives here). The rows need the views' keys (item_id, session_id) and a
moment; they come back in no order. On a cluster NEXTCLICK_SPARK_MASTER names it and all places are
s3a:// addresses.
"""


def _add_join(commands: Any) -> None:
    join = commands.add_parser(
        "join", help="features as known at the moments of a table", description=_JOIN
    )
    join.add_argument("--entities", required=True, help="Parquet file or folder: keys and moments")
    join.add_argument(
        "--view", required=True, action="append", help="name of a view; may be repeated"
    )
    join.add_argument("--out", required=True, help="folder to write, which must not exist yet")
    join.add_argument(
        "--moment", default="event_timestamp", help="the moments' column (%(default)s)"
    )
    join.add_argument("--json", action="store_true", help="one JSON document on stdout")


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


def _join_text(found: dict[str, Any]) -> str:
    return f"{found['rows_out']:,} rows of {found['rows_in']:,} in {found['out']}, {found['seconds']:.1f} s"


def _text(summary: dict[str, Any]) -> str:
    tables = [f"{name:<32}{rows:>12,} rows" for name, rows in summary["rows"].items()]
    refused = [
        f"refused: {reason:<23}{rows:>12,} rows" for reason, rows in summary["refused"].items()
    ]
    steps = [f"{name:<32}{seconds:>12.1f} s" for name, seconds in summary["seconds"].items()]
    return "\n".join([*tables, f"{'repeats':<32}{summary['repeats']:>12,} rows", *refused, *steps])


_COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "run": _run_text, "stream": _stream, "join": _join,
}  # fmt: skip
