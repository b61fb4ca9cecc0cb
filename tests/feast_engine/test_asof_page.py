"""`docs/joins.md` says what the implementations say, and ours says what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate_joins
from docs.generate_joins import OURS_TITLE, PAGE, RIGHT, SPARK_TITLE, STORES, merged, page, written
from tests.feast_engine.oracle import Case, answers, plain
from tests.feast_engine.worked_cases import CASES

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own stores'


@pytest.fixture(scope="module")
def found() -> generate_joins.Page:
    return generate_joins.ask(generate_joins.stores())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_loop_says_what_was_worked_out_by_hand(case: Case) -> None:
    [feature] = case.rule.features
    expected = [plain(row[feature]) for row in case.expected]
    assert [plain(row[feature]) for row in answers(case)] == expected


def test_ours_is_right_in_every_case(found: generate_joins.Page) -> None:
    assert {name: cells[OURS_TITLE] for name, cells in found.items()} == dict.fromkeys(found, RIGHT)
    assert len(found) == len(CASES), "two cases have one name"


def test_the_page_is_up_to_date(found: generate_joins.Page) -> None:
    text = PAGE.read_text()
    assert page(merged(found, written(text))) == text, "run: python docs/generate_joins.py"


def test_what_was_not_asked_again_stays(found: generate_joins.Page, tmp_path: Path) -> None:
    case = CASES[0].name
    with_spark = merged(found, {case: {SPARK_TITLE: "1 | 2"}})
    assert written(page(with_spark))[case][SPARK_TITLE] == "1 \\| 2"
    assert set(with_spark[case]) == {SPARK_TITLE, *STORES}


@pytest.mark.parametrize("arguments", [["--spork"], ["--check", "--spark"]])
def test_a_wrong_argument_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_joins.main(arguments) == 2
    assert "--check" in capsys.readouterr().err
