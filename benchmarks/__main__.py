"""`python -m benchmarks NAME`: the list of benchmarks, and one of them run."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from benchmarks import MODULES, NAMES
from contracts.errors import NextclickError


class Benchmarks(click.Group):
    """Imports a benchmark when it is run or asked for help, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return sorted(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in NAMES:
            return None
        module = MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = import_module(f"benchmarks.{module}").COMMAND
        return command


@click.command(cls=Benchmarks, help="Benchmarks against a running stack (./nextclick up).")
def main() -> None:
    pass


def run() -> int:
    """The exit code: 0 done, 1 failed, 2 wrong use."""
    try:
        main.main(prog_name="python -m benchmarks", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        print("stopped", file=sys.stderr)
        return 1
    except NextclickError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run())
