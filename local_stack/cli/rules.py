"""`rules`: business rules, looked at, checked, and put into a release without training."""

from __future__ import annotations

from pathlib import Path

import click

from contracts.release import Release, ReleaseStore
from local_stack.cli.main import emit, json_option, say, settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def add_to(cli: click.Group) -> None:
    cli.add_command(rules)


@click.group()
def rules() -> None:
    """Business rules of releases (docs/rules.md)."""


@rules.command("check")
@click.argument("file", type=FILE)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Whether a file is valid, and by what name releases and answers will call it."""
    from contracts.rules import read_rules

    found = read_rules(file)
    if as_json:
        emit({"version": found.name, "rules": found.model_dump(mode="json")})
    else:
        click.echo(f"valid; version {found.name}")


@rules.command("show")
@click.argument("release", required=False)
@json_option
def show(release: str | None, as_json: bool) -> None:
    """The rules of a release, as a file; without RELEASE of the live one."""
    store = ReleaseStore(settings().releases)
    found = store.rules(_release(store, release))
    if as_json:
        emit({"version": found.name, "rules": found.model_dump(mode="json")})
    else:
        click.echo(found.model_dump_json(indent=2))


@rules.command("apply")
@click.argument("file", type=FILE)
@click.option(
    "--activate/--no-activate",
    "activate_it",
    default=True,
    show_default=True,
    help="Make it live at once.",
)
@json_option
def apply(file: Path, activate_it: bool, as_json: bool) -> None:
    """A release like the live one with other rules: same ranker, same candidates, no training."""
    from contracts.rules import read_rules
    from local_stack.rebuild import activate
    from training.release import with_rules

    found = read_rules(file)
    store = ReleaseStore(settings().releases)
    made = with_rules(settings(), _release(store, None), found)
    if activate_it:
        activate(settings(), made.version, say)
    if as_json:
        emit({"release": made.version, "rules_version": made.rules_version, "live": activate_it})
    else:
        click.echo(f"release {made.version} has the rules {made.rules_version}")


def _release(store: ReleaseStore, version: str | None) -> Release:
    wanted = version or store.active_version()
    if wanted is None:
        say("no release is live: ./nextclick train makes one")
        raise SystemExit(1)
    return store.get(wanted)
