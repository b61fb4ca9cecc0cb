"""What the test part says of items, and a test part that says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import UsageError
from tests.training.evaluation import tables
from training.evaluation.files import event_file, session_table
from training.evaluation.report import Asked, evaluate_shop
from training.evaluation.run import Evaluation

BEGIN, APART = 1_700_000_000_000, 4_320_000


def events(path: Path, factor: float, category: str) -> Path:
    """In the test part items have other prices and categories."""
    lines = ["session_id,item_id,time,type,category,price"]
    for number, session in enumerate(tables.sessions(700, 1)):
        for place, item in enumerate(session):
            known, later = int(item[1:]), number >= 560
            price = factor * (60 - known) if later else 10 + known
            at = BEGIN + number * APART + place * 60_000
            group = f"{category if later else 'c'}{known % 5}"
            lines.append(f"s{number},{item},{at},view,{group},{price}")
    path.write_text("\n".join(lines) + "\n")
    return path


def fitted(path: Path, folder: Path) -> tuple[str, str, object]:
    found = Evaluation(event_file(path), tables.SMALL, folder, lambda *step: None).fit()
    return found.ranker.booster.model_to_string(), found.index.version, found.parameters


def test_prices_and_categories_of_the_test_part_change_nothing_that_is_fitted(
    tmp_path: Path,
) -> None:
    first = fitted(events(tmp_path / "a.csv", 1, "c"), tmp_path / "a")
    assert fitted(events(tmp_path / "b.csv", 9, "d"), tmp_path / "b") == first


def test_a_catalogue_has_a_row_for_each_change(tmp_path: Path) -> None:
    catalogue = event_file(events(tmp_path / "a.csv", 1, "d")).catalogue
    assert catalogue is not None
    of_item = [row for row in catalogue.to_pylist() if row["item_id"] == "i07"]
    assert [(row["category"], row["price"]) for row in of_item] == [("c2", 17), ("d2", 53)]
    assert of_item[0]["event_timestamp"] < of_item[1]["event_timestamp"]


def test_a_test_part_without_a_next_click_is_told(tmp_path: Path) -> None:
    train, test = tables.sessions(400, 1), [session[:1] for session in tables.sessions(60, 2)]
    shop = session_table(tables.write(tmp_path / "t.parquet", train, test))
    with pytest.raises(UsageError, match="no visit of the test part has a next click"):
        evaluate_shop(shop, tables.SMALL, Asked(0), tmp_path / "w", lambda *step: None)
