"""`evaluate` and `search`: how good the product is on a file, and what would make it better."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import UsageError
from contracts.windows import WANTED_QUERIES
from local_stack.cli.main import emit, json_option, say, settings

if TYPE_CHECKING:
    from training.evaluation.run import Options
    from training.evaluation.shop import Shop

Command = Callable[..., Any]
STEPS = 12
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def add_to(cli: click.Group) -> None:
    cli.add_command(evaluate)
    cli.add_command(search)


def _data_options(command: Command) -> Command:
    """Which data: a session table or a shop's events."""
    options = (
        click.argument("table", type=FILE, required=False),
        click.option("--events", type=FILE, help="A shop's events instead of a session table."),
        click.option("--map", "mapping", help="Columns of --events, as for `data import`."),
        click.option("--views-only", is_flag=True, help="Of --events: views and clicks alone."),
        click.option(
            "--min-item-views", default=1, show_default=True, type=click.IntRange(min=1),
            help="Of --events: items viewed less often are left out.",
        ),
        click.option(
            "--test-days", default=7.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
            help="Of --events: visits that begin in the last days are the test part.",
        ),
        click.option(
            "--keep-new", is_flag=True,
            help="Of --events: test clicks on items that the train part does not know stay.",
        ),
        click.option(
            "--as-served", is_flag=True,
            help="As the default rules serve: the item that is looked at is not listed, a second click on it not asked for. Published figures count it.",
        ),
        click.option(
            "--queries", default=WANTED_QUERIES, show_default=True, type=click.IntRange(min=50),
            help="Prefixes of the train part that the ranker learns from.",
        ),
        click.option("--no-embedding", is_flag=True, help="Without the session encoder."),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0)),
        click.option(
            "--work", type=click.Path(file_okay=False, path_type=Path),
            help="Folder below which finished stages are kept, by file and options; empty: HOME/evaluations.",
        ),
        click.option("--fresh", is_flag=True, help="Begin anew, whatever was finished before."),
        click.option("--mlflow/--no-mlflow", default=True, show_default=True, help="Log the run to MLflow."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_data_options
@click.option(
    "--without",
    multiple=True,
    help="Leave out a candidate source (and the baseline that it is), or features: a name, a view or a group of contracts/features.py; may be repeated.",
)
@click.option(
    "--peer-queries",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Prefixes that the package wsknn is asked; 0: none.",
)
@click.option("--rules", type=FILE, help="Business rules (docs/rules.md): what they cost in NDCG.")
@click.option("--parameters", type=FILE, help="What `nextclick search` found.")
@click.option(
    "--no-tuning", is_flag=True, help="Sources are asked and merged as they are by default."
)
@json_option
def evaluate(
    without: tuple[str, ...], peer_queries: int, rules: Path | None, parameters: Path | None,
    no_tuning: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """How good the served sources, features and ranker are on a file.

    TABLE: sessions as Parquet or CSV with the columns session_idx (in the order of time), position,
    item_id and split (train or test). Or --events: a shop's events, as `data import` takes them.
    Everything that is learned comes from the train part. No server has to be up.
    """
    from contracts.rules import read_rules
    from local_stack.cli.progress import StepProgress
    from local_stack.show_evaluation import evaluation_text
    from training.evaluation.report import Asked, evaluate_shop
    from training.evaluation.run import left_out
    from training.search_space import read_found

    shop, path = _shop(given)
    sources, features = left_out(without)
    options = _options(
        given, tune=not no_tuning, without=features, without_sources=sources, **read_found(parameters),
    )  # fmt: skip
    folder, vectors = _folders(given, shop, path, options)
    asked = Asked(peer_queries, None if rules is None else read_rules(rules))
    if asked.rules is not None and given["as_served"] and not asked.rules.exclude_current:
        raise UsageError(
            f"--as-served leaves out the item that is looked at, and {rules} lists it"
            " (exclude_current: false): drop one of them"
        )
    with StepProgress(1) as progress, progress.step(f"evaluate on {shop.name}"):
        document = evaluate_shop(shop, options, asked, folder, progress, vectors)
    if given["mlflow"]:
        document["mlflow_run"] = _logged(shop.name, document)
    emit(document) if as_json else click.echo(evaluation_text(document))


@click.command()
@_data_options
@click.option(
    "--trials", default=30, show_default=True, type=click.IntRange(min=1), help="Trials at most."
)
@click.option(
    "--seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="No trial begins later.",
)
@click.option(
    "--space",
    type=FILE,
    help='What is searched, JSON: {"num_leaves": {"low": 7, "high": 31}, "max_bin": [63, 127]}.',
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the best here, for `train --parameters`.",
)
@json_option
def search(
    trials: int, seconds: float, space: Path | None, out: Path | None, as_json: bool, **given: Any
) -> None:
    """Search parameters of the ranker and weights of labels, by Optuna; every trial is in MLflow.

    On a TABLE or --events as for `evaluate`; without either on the shop's own offline tables.
    Trials are judged on the newest label window of the train part, never on the test part.
    """
    from local_stack.cli.progress import StepProgress
    from training.search import Budget
    from training.search import search as searched
    from training.search_space import read_space

    chosen = read_space(space)
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}; make it first")
    with StepProgress(2) as progress:
        with progress.step("rows of the label windows"):
            name, windows, kinds = _label_rows(given, progress)
        with progress.step(f"{trials} trials"):
            found = searched(
                windows, kinds, chosen, Budget(trials, seconds), given["seed"],
                lambda done, of: progress("trials", done, of),
            )  # fmt: skip
    document = {
        "dataset": name, "trials": len(found.trials) - 1 + len(found.refused),
        "stopped": found.stopped, "judged_on": found.judged,
        "usual": dict(found.trials[0].figures), "best": dict(found.best.figures), "refused": list(found.refused),
        **found.as_file(),
    }  # fmt: skip
    if given["mlflow"]:
        document["mlflow_run"] = _logged_search(name, document, found)
    emit(document) if as_json else click.echo(json.dumps(document, indent=2))
    if out is not None:
        try:
            out.write_text(json.dumps(found.as_file(), indent=2))
        except OSError as error:  # all is printed above
            raise UsageError(f"--out {out} cannot be written: {error.strerror}") from None
        say(f"{out}: ./nextclick train --parameters {out}")


def _shop(given: dict[str, Any]) -> tuple[Shop, Path]:
    from local_stack.cli.data import parse_mapping
    from training.evaluation.files import event_file, session_table

    table, events = given["table"], given["events"]
    if (table is None) == (events is None):
        raise UsageError("give a session table, or --events and a file of events: one of them")
    if table is not None:
        _refuse(given, "of --events only; a session table says itself what is tested")
        return session_table(table, current=not given["as_served"]), table
    shop = event_file(
        events, parse_mapping(given["mapping"]), views_only=given["views_only"],
        min_item_views=given["min_item_views"], test_days=given["test_days"],
        keep_new=given["keep_new"], current=not given["as_served"],
    )  # fmt: skip
    return shop, events


def _refuse(given: dict[str, Any], why: str, **more: Any) -> None:
    """UsageError where an option of event files is given, or one of `more`, by its usual value."""
    usual = {"mapping": None, "views_only": False, "min_item_views": 1, "test_days": 7.0, "keep_new": False}  # fmt: skip
    names = {"mapping": "map"}
    if other := [name for name, value in (usual | more).items() if given[name] != value]:
        options = ", ".join(f"--{names.get(name, name).replace('_', '-')}" for name in other)
        raise UsageError(f"{options}: {why}")


def _options(given: dict[str, Any], **more: Any) -> Options:
    from training.encoder.learn import Options as EncoderOptions
    from training.evaluation.run import Options

    return Options(
        queries=given["queries"], seed=given["seed"], embedding=not given["no_embedding"],
        encoder=EncoderOptions(seed=given["seed"]), **more,
    )  # fmt: skip


def _folders(given: dict[str, Any], shop: Shop, path: Path, options: Any) -> tuple[Path, Path]:
    """Of this run, and of the encoders that runs on the same events share."""
    from local_stack.cli.data import parse_mapping
    from training.evaluation.report import digest, encoder_digest

    asked = ("as_served", "views_only", "min_item_views", "test_days", "keep_new")
    which = [
        shop.cutoff, len(shop.events), shop.name, parse_mapping(given["mapping"]),
        *(given[name] for name in asked),
    ]  # fmt: skip
    root: Path = given["work"] or settings().home / "evaluations"
    folder = root / f"run-{digest(path, options, which)}"
    vectors = root / f"encoder-{encoder_digest(path, options, which)}"
    if given["fresh"]:
        for old in (folder, vectors):
            shutil.rmtree(old, ignore_errors=True)
    return folder, vectors


def _label_rows(given: dict[str, Any], progress: Any) -> tuple[str, Any, Any]:
    from training.evaluation.run import Evaluation
    from training.train import Options as TrainOptions
    from training.train import label_rows

    embedding = not given["no_embedding"]
    if given["table"] is None and given["events"] is None:
        why = "of a file only; without one the shop's own tables are searched"
        _refuse(given, why, as_served=False, work=None, fresh=False)
        options = TrainOptions(queries=given["queries"], seed=given["seed"], embedding=embedding)
        return ("the shop", *label_rows(settings(), options, progress))
    shop, path = _shop(given)
    wanted = _options(given)
    folder, vectors = _folders(given, shop, path, wanted)
    learned = Evaluation(shop, wanted, folder, progress, vectors).learn()
    return shop.name, learned.rows, learned.kinds


def _logged(name: str, document: dict[str, Any]) -> str:
    from training.tracking import flat, log_run

    figures = {
        re.sub(r"[^\w./ -]", "_", key): value
        for key, value in flat(document).items()
        if key.split(".")[0] not in ("options", "learned", "versions")
    }
    parameters = {**document["options"], "dataset": name, "trees": document["learned"]["trees"]}
    return log_run(
        settings(), "nextclick-evaluation", name, parameters, figures, {"evaluation.json": document}
    )


def _logged_search(name: str, document: dict[str, Any], found: Any) -> str:
    from training.tracking import log_run

    trials = [(trial.parameters, trial.figures) for trial in found.trials]
    return log_run(
        settings(), "nextclick-search", name, {"dataset": name}, found.best.figures,
        {"search.json": document}, trials,
    )  # fmt: skip
