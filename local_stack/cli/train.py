"""`train` and `release`."""

from __future__ import annotations

from pathlib import Path

import click

from contracts.release import Release, ReleaseStore
from contracts.windows import WANTED_QUERIES
from local_stack.cli.main import emit, json_option, say, settings


def add_to(cli: click.Group) -> None:
    cli.add_command(train)
    cli.add_command(release)


@click.command()
@click.option(
    "--queries",
    default=WANTED_QUERIES,
    show_default=True,
    type=click.IntRange(min=50),
    help="Next clicks that the ranker learns from, over as many weeks as it takes.",
)
@click.option(
    "--no-embedding",
    is_flag=True,
    help="Without the session encoder, which takes most of the time.",
)
@click.option(
    "--parameters",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `nextclick search` found: parameters of the ranker and weights of labels.",
)
@click.option(
    "--activate/--no-activate",
    "activate_it",
    default=True,
    show_default=True,
    help="Make the release live at once.",
)
@json_option
def train(
    queries: int, no_embedding: bool, parameters: Path | None, activate_it: bool, as_json: bool
) -> None:
    """From the lake to a live release: Spark, Feast, LightGBM, export, parity, switch."""
    from local_stack.cli.progress import StepProgress
    from local_stack.rebuild import STEPS, rebuild
    from local_stack.show import quality_table
    from training.search_space import read_found
    from training.train import Options

    options = Options(queries=queries, embedding=not no_embedding, **read_found(parameters))
    with StepProgress(STEPS) as progress:
        made = rebuild(settings(), progress, options, activate_it)
    if as_json:
        emit(made.model_dump(mode="json"))
    else:
        say()
        click.echo(quality_table(made))


@click.group()
def release() -> None:
    """What is live, and switching it."""


@release.command("list")
@json_option
def list_releases(as_json: bool) -> None:
    """All releases, oldest first; the live one is marked."""
    store = ReleaseStore(settings().releases)
    active = store.active_version()
    releases = [store.get(version) for version in store.versions()]
    if as_json:
        emit({"active": active, "releases": [_row(item) for item in releases]})
        return
    if not releases:
        say("no release yet: ./nextclick train makes one")
    for item in releases:
        mark = "*" if item.version == active else " "
        click.echo(
            f"{mark} {item.version}  ranker {item.ranker_version}  index {item.index_version}"
        )


def _row(item: Release) -> dict[str, object]:
    return {
        "version": item.version,
        "created": item.created.isoformat(),
        "ranker_version": item.ranker_version,
        "index_version": item.index_version,
    }


@release.command("show")
@click.argument("version", required=False)
@json_option
def show_release(version: str | None, as_json: bool) -> None:
    """A release whole; without VERSION the live one."""
    from local_stack.show import quality_table

    store = ReleaseStore(settings().releases)
    wanted = version or store.active_version()
    if wanted is None:
        say("no release is live: ./nextclick train makes one")
        raise SystemExit(1)
    found = store.get(wanted)
    if as_json:
        emit(found.model_dump(mode="json"))
        return
    manifest = found.model_dump(mode="json", exclude={"metrics", "features"})
    for name, value in manifest.items():
        click.echo(f"{name:<16} {value}")
    click.echo(f"{'features':<16} {len(found.features)}: {', '.join(found.features)}\n")
    click.echo(quality_table(found))


@release.command("activate")
@click.argument("version")
@json_option
def activate_release(version: str, as_json: bool) -> None:
    """Check a release as a whole and make it live, without losing a request."""
    from local_stack.rebuild import activate

    activate(settings(), version, say)
    if as_json:
        emit({"active": version})
    else:
        say(f"{version} is live")
