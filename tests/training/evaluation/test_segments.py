"""Each group of test queries, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.evaluation.files import event_file
from training.evaluation.report import _returning
from training.evaluation.run import END
from training.evaluation.segments import segments
from training.history import Query

CLICKS = {f"i{count:02d}": count for count in range(1, 11)}
"""Ten items with 1 to 10 clicks: i09 and i10 are the head."""
DAY_MS = 86_400_000
BEGIN = 1_700_000_000_000


def query(label: str, *visited: str, session: str = "s") -> Query:
    return Query("v", session, 0, visited, label, 1, "click")


def found(name: str, *queries: Query, earlier: frozenset[str] = frozenset()) -> list[bool]:
    flags = segments(queries, CLICKS, earlier)[name]
    assert flags.dtype == bool
    return [bool(flag) for flag in flags]


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("length 1", [1]),
        ("length 2", [2]),
        ("length 3-4", [3, 4]),
        ("length 5-9", [5, 6, 7, 8, 9]),
        ("length 10+", [10, 11, 12]),
        ("first prefix of a session", [1]),
    ],
)
def test_lengths_are_of_what_was_visited(name: str, lengths: list[int]) -> None:
    queries = [query("i01", *["i02"] * length) for length in range(1, 13)]
    assert [1 + row for row in np.flatnonzero(found(name, *queries))] == lengths


def test_every_length_is_in_one_group() -> None:
    queries = [query("i01", *["i02"] * length) for length in range(1, 40)]
    flags = segments(queries, CLICKS, frozenset())
    groups = [values for name, values in flags.items() if name.startswith("length ")]
    assert (np.sum(groups, axis=0) == 1).all()


def test_a_repeat_is_an_item_visited_at_any_step_before() -> None:
    queries = [query("i01", "i01", "i02", "i03"), query("i03", "i01", "i03"), query("i04", "i01")]
    assert found("repeat item", *queries) == [True, True, False]
    assert found("item new to the session", *queries) == [False, False, True]


def test_the_head_is_a_fifth_of_the_items_and_the_tail_the_rest_that_was_clicked() -> None:
    queries = [query(item, "i01") for item in [*sorted(CLICKS), "never"]]
    assert found("head item", *queries) == [False] * 8 + [True] * 2 + [False]
    assert found("tail item", *queries) == [True] * 8 + [False] * 3
    assert found("item without a click before", *queries) == [False] * 10 + [True]


def test_where_all_items_are_alike_none_is_the_head() -> None:
    flags = segments([query("a", "b")], {"a": 3, "b": 3}, frozenset())
    assert not flags["head item"].any()
    assert flags["tail item"].all()


def test_without_any_click_all_labels_are_new() -> None:
    flags = segments([query("a", "b")], {}, frozenset())
    assert flags["item without a click before"].tolist() == [True]
    assert not flags["head item"].any()
    assert not flags["tail item"].any()


def test_returning_are_the_sessions_that_are_named() -> None:
    queries = [query("i01", "i02", session="s"), query("i01", "i02", session="t")]
    assert found("returning session", *queries, earlier=frozenset({"t"})) == [False, True]


def test_a_second_visit_of_one_session_in_a_file_is_returning(tmp_path: Path) -> None:
    """Once with the first visit in the train part, once with both in the test part."""
    visits = [(f"old{day}", float(day)) for day in range(0, 20, 2)]
    visits += [("old4", 19.0), ("twice", 19.1), ("once", 19.2), ("twice", 19.9)]
    lines = [
        f"{session},{item},{BEGIN + int(day * DAY_MS) + 60_000 * place},view\n"
        for session, day in sorted(visits, key=lambda visit: visit[1])
        for place, item in enumerate("ab")
    ]
    path = tmp_path / "e.csv"
    path.write_text("session_id,item_id,time,type\n" + "".join(lines))
    shop = event_file(path, test_days=1.5)
    queries = [shop.query(prefix) for prefix in shop.prefixes(shop.cutoff, END)]
    returning = segments(queries, {"a": 1, "b": 1}, _returning(shop))["returning session"]
    told = [
        (entry.visit.split("~")[0], flag) for entry, flag in zip(queries, returning, strict=True)
    ]
    assert told == [("old4", True), ("twice", False), ("once", False), ("twice", True)]
