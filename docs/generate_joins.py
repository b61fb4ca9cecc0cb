"""Writes `docs/joins.md`: the same small joins asked of each implementation, and what each says.

`python docs/generate_joins.py` asks our store and Feast's two; the column of the Spark job stays as
it is. `--spark` asks that too (minutes). `--check` writes nothing and tells (exit code 3) whether
the page is out of date.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from feast_engine.join_rule import JoinRule
from tests.feast_engine.feast_join import OURS, answer, define, open_store
from tests.feast_engine.oracle import ROW, Case, Implementation, plain, reordered
from tests.feast_engine.worked_cases import CASES, TIES

PAGE = Path(__file__).parent / "joins.md"
OURS_TITLE, SPARK_TITLE = "ours", "Spark job"
STORES = {OURS_TITLE: OURS, "Feast duckdb": "duckdb", "Feast dask": "dask"}
SPARK_MODULE = "tests.spark_jobs.spark_join"
"""Its `join` is the Spark job as an `Implementation`."""
NOT_RUN = "not run"
STALE = "docs/joins.md is out of date: run python docs/generate_joins.py"
RIGHT = "right"
MOVED = "depends on the order of the rows"

Page = dict[str, dict[str, str]]
"""Name of a case → title of an implementation → what it says."""


Ask = Callable[[Sequence[Case], Path], list[Callable[[], pa.Table]]]
"""Cases and an empty folder → for each case what asks it."""


def said(prepare: Ask) -> dict[str, str]:
    """Name of a case → `right`, or how the answer differs. Ties are asked with the rows of the
    history in two orders."""
    asked = [*CASES, *(reordered(case) for case in TIES)]
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        joins = prepare(asked, Path(folder) / "cases")
        for case, join in zip(asked, joins, strict=True):
            outcome = _outcome(join, case)
            found[case.name] = outcome if found.get(case.name, outcome) == outcome else MOVED
    return found


def _outcome(join: Callable[[], pa.Table], case: Case) -> str:
    try:
        return _compared(join(), case)
    except Exception as error:  # noqa: BLE001  # whatever it says is what we note down
        return f"error: {type(error).__name__}"


def in_feast(offline: str) -> Ask:
    """One repository for all cases: each has its view."""

    def prepare(cases: Sequence[Case], folder: Path) -> list[Callable[[], pa.Table]]:
        store = open_store(folder, offline)
        refs = define(store, cases, folder)
        return [partial(answer, store, case, own) for case, own in zip(cases, refs, strict=True)]

    return prepare


def one_by_one(join: Implementation) -> Ask:
    def prepare(cases: Sequence[Case], folder: Path) -> list[Callable[[], pa.Table]]:
        folder.mkdir()
        return [partial(join, case, folder / str(place)) for place, case in enumerate(cases)]

    return prepare


def _compared(table: pa.Table, case: Case) -> str:
    [feature] = case.rule.features
    expected = [plain(row[feature]) for row in case.expected]
    rows, values = table[ROW].to_pylist(), [plain(value) for value in table[feature].to_pylist()]
    if rows == list(range(len(expected))):
        return RIGHT if values == expected else _list(values)
    lost = sorted(set(range(len(expected))) - set(rows))
    if lost:
        return f"{len(lost)} of {len(expected)} rows lost"
    in_place = [
        value for _, value in sorted(zip(rows, values, strict=True), key=lambda pair: pair[0])
    ]
    return "rows in another order" + ("" if in_place == expected else f", {_list(in_place)}")


def _list(values: Sequence[Any]) -> str:
    return ", ".join("null" if value is None else f"{value:,}" for value in values)


def ask(implementations: Mapping[str, Ask]) -> Page:
    columns = {title: said(prepare) for title, prepare in implementations.items()}
    return {
        case.name: {title: column[case.name] for title, column in columns.items()} for case in CASES
    }


def stores() -> dict[str, Ask]:
    return {title: in_feast(name) for title, name in STORES.items()}


def spark() -> Ask:
    return one_by_one(import_module(SPARK_MODULE).join)


# --- the page ----------------------------------------------------------------------------------

HEAD = """<!-- Made by docs/generate_joins.py. Don't edit. -->

# Where point-in-time joins differ

Each line is a small join with an answer that a person can work out
(`tests/feast_engine/worked_cases.py`), asked of our offline store, of Feast's two for files and of
the same join as a Spark job. Feast's are asked with `filter_by_created_timestamp=True` where rows
are to be hidden until they were created, unless the line says otherwise; ours does so by default.
Ties are asked with the history in two orders. A cell says `right`, or what came instead.

The rule itself:

"""


def page(found: Page) -> str:
    titles = [*STORES, SPARK_TITLE]
    lines = [
        _line(["case", "what is asked", "right answer", *titles]),
        _line(["---"] * (3 + len(titles))),
    ]
    for case in CASES:
        [feature] = case.rule.features
        right = _list([plain(row[feature]) for row in case.expected])
        cells = [found[case.name].get(title, NOT_RUN) for title in titles]
        lines.append(_line([case.name, case.asked, right, *cells]))
    return HEAD + _rule() + "\n\n" + "\n".join(lines) + "\n"


def _rule() -> str:
    """The text of `feast_engine.join_rule`, without its first line."""
    text = import_module(JoinRule.__module__).__doc__ or ""
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines()[2:])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def written(text: str) -> Page:
    """What a page says, by case and title."""
    rows = [
        re.split(r" (?<!\\)\| ", line[2:-2]) for line in text.splitlines() if line.startswith("| ")
    ]
    if not rows:
        return {}
    titles = rows[0]
    return {row[0]: dict(zip(titles, row, strict=True)) for row in rows[2:]}


def merged(new: Page, old: Page) -> Page:
    """What was asked now, beside what the page says of those that were not."""
    return {
        name: {SPARK_TITLE: old.get(name, {}).get(SPARK_TITLE, NOT_RUN), **cells}
        for name, cells in new.items()
    }


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["--check"], ["--spark"]):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    asked = stores()
    if arguments == ["--spark"]:
        asked[SPARK_TITLE] = spark()
    old = PAGE.read_text() if PAGE.exists() else ""
    text = page(merged(ask(asked), written(old)))
    if arguments == ["--check"]:
        if text != old:
            print(STALE, file=sys.stderr)  # noqa: T201
        return 3 if text != old else 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
