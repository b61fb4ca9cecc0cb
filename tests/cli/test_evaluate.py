"""`evaluate` and `search`, as a shell sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import run
from tests.training.evaluation import tables


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    train, test = tables.sessions(400, 1), tables.sessions(60, 2)
    return tables.write(folder / "t.parquet", train, test)


QUICK = ("--no-embedding", "--no-mlflow", "--queries", "500")


def test_figures_as_json_and_as_text(table: Path, tmp_path: Path) -> None:
    command = ("evaluate", str(table), *QUICK, "--peer-queries", "0", "--work", str(tmp_path / "w"))
    done = run(tmp_path, *command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["dataset"] == "t.parquet"
    assert document["hit_rate@20"]["value"] > 0.7
    assert "fit the ranker" in done.stderr
    again = run(tmp_path, *command)
    assert f"{document['hit_rate@20']['value']:.4f}" in again.stdout
    assert "fit the ranker" not in again.stderr  # it went on from where it was


def test_a_search_is_written_for_the_training(table: Path, tmp_path: Path) -> None:
    space, out = tmp_path / "space.json", tmp_path / "found.json"
    space.write_text('{"num_leaves": [4, 8]}')
    done = run(
        tmp_path, "search", str(table), *QUICK, "--trials", "2", "--space", str(space),
        "--out", str(out), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["trials"] == 2
    assert told["judged_on"] >= 50
    assert set(json.loads(out.read_text())) == {"ranker", "label_weights"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a session table, or --events"),
        (("TABLE", "--events", "TABLE"), "one of them"),
        (("TABLE", "--without", "nonsense"), "neither a source"),
        (("TABLE", "--rules", "TABLE"), "rules"),
        (("TABLE", "--parameters", "TABLE"), "is no result of a search"),
        (("--events", "TABLE"), "session"),
        (("nowhere.parquet",), "does not exist"),
        (("TABLE", "--views-only", "--map", "item=x"), "--map, --views-only: of --events only"),
    ],
)
def test_wrong_use_is_told(
    table: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [str(table) if each == "TABLE" else each for each in arguments]
    done = run(tmp_path, "evaluate", *given, *QUICK)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- a table as CSV, a shop's events, what options do ---------------------------------------------


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 sessions to learn from, 60 to ask."""
    path = tmp_path_factory.mktemp("csv") / "sessions.csv"
    lines = [
        f"{number},{place},{item},{'train' if number < 400 else 'test'}\n"
        for number, session in enumerate([*tables.sessions(400, 1), *tables.sessions(60, 2)])
        for place, item in enumerate(session)
    ]
    path.write_text("session_idx,position,item_id,split\n" + "".join(lines))
    return path


def evaluated(home: Path, *arguments: str) -> dict[str, Any]:
    done = run(home, "evaluate", *arguments, *QUICK, "--peer-queries", "0", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)  # and nothing else
    return document


def test_a_csv_gives_its_figures_and_another_run_of_it_begins_anew_where_that_is_asked(
    csv: Path, tmp_path: Path
) -> None:
    work = ("--no-tuning", "--work", str(tmp_path / "w"))
    found = evaluated(tmp_path, str(csv), *work)
    assert found["dataset"] == "sessions.csv"
    assert found["prefixes"] == sum(len(session) - 1 for session in tables.sessions(60, 2))
    assert {"hit_rate@10", "mrr@20", "recall@100", "lists", "segments", "baselines"} <= set(found)
    assert "mlflow_run" not in found
    assert not (tmp_path / "evaluations").exists()
    again = run(tmp_path, "evaluate", str(csv), *QUICK, "--peer-queries", "0", *work, "--fresh")
    assert again.returncode == 0
    assert "fit the ranker" in again.stderr


def test_what_is_left_out_is_not_used_and_without_tuning_nothing_else_is_asked_otherwise(
    csv: Path, tmp_path: Path
) -> None:
    found = evaluated(tmp_path, str(csv), "--without", "sequential", "--no-tuning", "--seed", "3")
    assert found["learned"]["sources"] == {}
    assert "sequential" not in found["recall@100"]  # it proposed nothing
    assert "sequential_rules" not in found["baselines"]
    options = found["options"]
    assert options["without_sources"] == ["sequential"]
    assert "sequential_score" in options["without"]
    assert (options["seed"], options["queries"], options["tune"]) == (3, 500, False)
    importance = found["learned"]["importance"]
    assert all(gain == 0 for name, gain in importance.items() if name.startswith("sequential_"))
    assert len(list((tmp_path / "evaluations").iterdir())) == 1  # of the shop's home


def test_events_of_a_shop(tmp_path: Path) -> None:
    """Columns by other names; carts, the third event of a visit, are left out."""
    begin, day = 1_700_000_000, 86_400
    sessions = tables.sessions(500, 1)
    lines = [
        f"s{number},{item},{begin + number * 28 * day // 500 + 60 * place},{'cart' if place == 2 else 'view'}\n"
        for number, session in enumerate(sessions)
        for place, item in enumerate(session)
    ]
    path = tmp_path / "events.csv"
    path.write_text("who,what,at,how\n" + "".join(lines))
    named = ("--events", str(path), "--map", "session=who,item=what,time=at,type=how")
    found = evaluated(tmp_path, *named, "--no-tuning", "--views-only", "--test-days", "8")
    assert found["dataset"] == "events.csv"
    assert found["hit_rate@20"]["value"] > 0.5
    assert found["segments"]["returning session"]["prefixes"] == 0
    assert found["days"] == {"first": "2023-11-14", "test_from": "2023-12-04", "last": "2023-12-12"}
    train, rest = 500 * 20 // 28, [1 if len(each) > 2 else 0 for each in sessions]
    views = sum(len(each) - rest[row] for row, each in enumerate(sessions[: train + 1]))
    assert abs(found["train_events"] - views) <= 5  # one visit lies on the border


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("TABLE", "--queries", "10"), "--queries"),
        (("TABLE", "--seed", "-1"), "--seed"),
        (("--events", "TABLE", "--test-days", "0"), "--test-days"),
        (("--events", "TABLE", "--min-item-views", "0"), "--min-item-views"),
        (("--events", "TABLE", "--map", "session"), "--map"),
        (("--events", "TABLE", "--map", "item=a,item=b"), "--map: item named twice"),
        (("TABLE", "--without", "sequential", "--without", "nonsense"), "--without nonsense"),
    ],
)
def test_wrong_values_name_their_option(
    csv: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [str(csv) if each == "TABLE" else each for each in arguments]
    done = run(tmp_path, "evaluate", *given, "--no-embedding", "--no-mlflow", "--json")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_that_is_none_says_what_came_and_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("session,item\n1,a\n")
    done = run(tmp_path, "evaluate", str(path), *QUICK, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    told = " ".join(done.stderr.split())
    assert "found session, item" in told
    assert "session_idx, position, item_id, split" in told


def test_a_space_that_is_none_ends_a_search_before_it_begins(csv: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text('{"num_leaves": {"low": 9, "high": 4}}')
    done = run(tmp_path, "search", str(csv), *QUICK, "--space", str(space), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no range" in done.stderr
    assert "label windows" not in done.stderr


def test_a_search_that_could_not_keep_its_result_does_not_begin(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "no folder" / "best.json"
    done = run(tmp_path, "search", str(csv), *QUICK, "--out", str(out), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no folder" in done.stderr
    assert "label windows" not in done.stderr


def test_a_result_that_cannot_be_written_is_printed_all_the_same(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.json"
    out.symlink_to(tmp_path / "no folder" / "best.json")
    done = run(tmp_path, "search", str(csv), *QUICK, "--trials", "1", "--out", str(out), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["trials"] == 1
    assert "cannot be written" in done.stderr


def test_as_served_the_item_that_is_looked_at_is_neither_listed_nor_asked_for(
    tmp_path: Path,
) -> None:
    lines = [
        f"{number},{place},{item},{'train' if number < 400 else 'test'}\n"
        for number, session in enumerate([*tables.sessions(400, 1), *tables.sessions(60, 2)])
        for place, item in enumerate([session[0], *session])
    ]
    path = tmp_path / "sessions.csv"
    path.write_text("session_idx,position,item_id,split\n" + "".join(lines))
    given = (str(path), "--no-tuning", "--work", str(tmp_path / "w"))
    published, served = evaluated(tmp_path, *given), evaluated(tmp_path, *given, "--as-served")
    assert (published["current_item_listed"], served["current_item_listed"]) == (True, False)
    assert published["labels_that_are_the_current_item"] >= 60
    assert served["labels_that_are_the_current_item"] == 0
    assert served["prefixes"] == published["prefixes"] - published["labels_that_are_the_current_item"]  # fmt: skip
    assert served["segments"]["repeat item"]["prefixes"] < 60
    assert len(list((tmp_path / "w").glob("run-*"))) == 2


def test_a_search_of_the_shops_own_tables_takes_no_options_of_files(tmp_path: Path) -> None:
    done = run(tmp_path, "search", *QUICK, "--views-only", "--test-days", "3", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--views-only, --test-days: of a file only" in done.stderr
    done = run(tmp_path, "search", *QUICK, "--as-served", "--fresh", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--as-served, --fresh: of a file only" in done.stderr


def test_rules_that_list_what_an_evaluation_leaves_out_are_refused(
    csv: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"exclude_current": false}')
    done = run(
        tmp_path, "evaluate", str(csv), *QUICK, "--as-served", "--rules", str(rules), "--json"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "exclude_current: false" in done.stderr


def test_options_that_leave_as_many_events_are_other_runs(tmp_path: Path) -> None:
    """A cart, or a view of an item that is viewed once: as many are left, others."""
    begin, day = 1_700_000_000, 86_400
    lines = [
        f"s{number},{item},{begin + number * 28 * day // 300 + 60 * place},view\n"
        for number, session in enumerate(tables.sessions(300, 1))
        for place, item in enumerate(session)
    ]
    lines[5:5] = [
        f"s0,{lines[0].split(',')[1]},{begin + 30},cart\n",
        f"s0,rare,{begin + 31},view\n",
    ]
    path = tmp_path / "events.csv"
    path.write_text("session_id,item_id,time,type\n" + "".join(lines))
    given = ("--events", str(path), "--no-tuning", "--work", str(tmp_path / "w"))
    first = evaluated(tmp_path, *given, "--views-only")
    second = evaluated(tmp_path, *given, "--min-item-views", "2")
    assert first["train_events"] == second["train_events"]
    assert len(list((tmp_path / "w").glob("run-*"))) == 2


def test_another_mapping_of_the_same_file_is_another_run(tmp_path: Path) -> None:
    """Once the items of the file, once all of them the same two in turn."""
    begin, day = 1_700_000_000, 86_400
    lines = [
        f"s{number},{item},{'xy'[place % 2]},{begin + number * 28 * day // 500 + 60 * place},view\n"
        for number, session in enumerate(tables.sessions(500, 1))
        for place, item in enumerate(session)
    ]
    path = tmp_path / "events.csv"
    path.write_text("who,what,other,at,how\n" + "".join(lines))
    named = ("--events", str(path), "--no-tuning", "--work", str(tmp_path / "w"), "--map")
    columns = "session=who,time=at,type=how,item="
    first, second = (evaluated(tmp_path, *named, columns + item) for item in ("what", "other"))
    assert (first["items"], second["items"]) == (tables.ITEMS, 2)
    assert len(list((tmp_path / "w").glob("run-*"))) == 2
