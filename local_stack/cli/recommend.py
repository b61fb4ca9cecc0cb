"""`recommend`: ask the running endpoint as a shop's site would."""

from __future__ import annotations

import click

from local_stack.cli.main import emit, json_option, settings


def add_to(cli: click.Group) -> None:
    cli.add_command(recommend)


@click.command()
@click.option("--session", help="A session whose events were sent.")
@click.option(
    "--item",
    "items",
    multiple=True,
    help="An item that was just viewed; repeat it for several, oldest first.",
)
@click.option(
    "--exclude", multiple=True, help="An item that must not be in the list; may be repeated."
)
@click.option("-k", "count", default=10, show_default=True, help="How many items.")
@json_option
def recommend(
    session: str | None, items: tuple[str, ...], exclude: tuple[str, ...], count: int, as_json: bool
) -> None:
    """The items that the visitor will most likely click next."""
    from local_stack.client import ask, describe_items
    from local_stack.show import answer_text

    answer = ask(settings(), session, items, exclude, count)
    if as_json:
        emit(answer)
        return
    named = describe_items(settings(), [*items, *(item["item_id"] for item in answer["items"])])
    click.echo(answer_text(answer, named, list(items)))
