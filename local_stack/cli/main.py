"""The commands. Heavy libraries are imported where a command needs them: `--help` is instant."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from contracts.errors import NextclickError
from contracts.settings import Settings

EXIT_CODES = """Exit codes: 0 good; 1 failed, with the reason; 2 wrong use; 3 a check found what it
looks for."""

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document on stdout, everything else on stderr.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
def cli() -> None:
    """Nextclick: which item will this visitor click next."""


def settings() -> Settings:
    return Settings.from_environment()


def emit(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, default=str))


def say(text: str = "") -> None:
    click.echo(text, err=True)


def assembled() -> click.Group:
    """The command with everything below it."""
    from local_stack.cli import data, evaluate, operate, parity, recommend, rules, train

    for module in (operate, data, train, evaluate, rules, recommend, parity):
        module.add_to(cli)
    return cli


def main() -> None:
    """Run a command; an error of ours is one message, not a traceback."""
    try:
        assembled()(prog_name="./nextclick", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        say("stopped")
        sys.exit(130)
    except NextclickError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
