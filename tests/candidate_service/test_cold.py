"""Cold starts: no visit yet, one click, an item that nobody clicked yet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SOURCES
from contracts.tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from tests.candidate_service.shop import CUTOFF, DAY, Row, events, visit

SHOES, HATS = 11, 22
ACME, OTHER = 5, 6
SHOP = {
    "shoe-1": (SHOES, ACME, 50.0), "shoe-2": (SHOES, OTHER, 55.0), "shoe-3": (SHOES, OTHER, 500.0),
    "shoe-new": (SHOES, ACME, 52.0), "hat-1": (HATS, ACME, 20.0), "hat-new": (HATS, OTHER, 21.0),
    "loose": (0, 0, None),
}  # fmt: skip
"""Category, brand and price; the new ones have no event."""


def catalogue(known: int = CUTOFF - DAY) -> pa.Table:
    moments = pa.array([known] * len(SHOP), pa.timestamp("ms", "UTC"))
    category, brand, price = zip(*SHOP.values(), strict=True)
    return pa.table(
        {
            "item_id": list(SHOP), EVENT_TIMESTAMP: moments, CREATED_TIMESTAMP: moments,
            "category_id": pa.array(category, pa.int64()), "brand_id": pa.array(brand, pa.int64()),
            "price": pa.array(price, pa.float32()),
        }
    )  # fmt: skip


def built(folder: Path, said: pa.Table | None) -> CandidateIndex:
    rows = [
        row
        for number in range(6)
        for row in visit(f"v{number}", ["shoe-1", "shoe-2", "shoe-3", "hat-1", "loose"])
    ]
    return loaded(rows, folder, said)


def loaded(rows: list[Row], folder: Path, said: pa.Table | None = None) -> CandidateIndex:
    manifest = build_index(events(rows), None, CUTOFF, folder, catalogue=said)
    return CandidateIndex.load(folder / manifest.version)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    return built(tmp_path_factory.mktemp("cold"), catalogue())


def test_a_visitor_of_whom_nothing_is_known_gets_what_is_popular(index: CandidateIndex) -> None:
    spoke = {source for source in SOURCES if index.propose(source, [], 5)[0]}
    assert spoke == {"popular"}
    assert len(index.candidates([], 5)) == 5


def test_one_click_is_enough_for_every_source_but_the_vectors(index: CandidateIndex) -> None:
    spoke = {source for source in SOURCES if index.propose(source, ["shoe-1"], 5)[0]}
    assert spoke == set(SOURCES) - {"vector"}


def test_a_new_item_is_found_by_category_brand_and_price(index: CandidateIndex) -> None:
    found, scores = index.propose("content", ["shoe-1"], 10)
    assert found[0] == "shoe-new"  # the same brand, and nearly the price
    assert found.index("shoe-2") < found.index("shoe-3")  # nearer in price
    assert "hat-new" not in found
    assert scores[0] > scores[1]
    listed = index.candidates(["shoe-1"], 6, ["shoe-1"])
    assert "shoe-new" in listed.items
    assert "hat-new" in index.candidates(["hat-1"], 6, ["hat-1"]).items


def test_a_new_item_has_a_place_among_many(tmp_path: Path) -> None:
    """With more items than places: those that nobody clicked come last in `popular`."""
    rows = [row for n in range(60) for row in visit(f"m{n:02d}", [f"many{n:02d}", "shoe-1"])]
    index = loaded(rows, tmp_path / "known", catalogue())
    found = index.candidates(["many00", "shoe-1"], 20, ["many00", "shoe-1"])
    assert len(found) == 20
    row = found.items.index("shoe-new")
    assert found.sources_of(row) == ["content"]
    assert found.scores[row, SOURCES.index("content")] > 1
    assert found.scores[row, SOURCES.index("popular")] == 0
    assert "shoe-new" not in loaded(rows, tmp_path / "unknown")


def test_a_new_item_can_be_visited(index: CandidateIndex) -> None:
    found = index.candidates(["shoe-new"], 4, ["shoe-new"])
    assert set(found.items[:3]) >= {"shoe-1", "shoe-2"}


def test_an_item_of_which_the_catalogue_says_nothing_is_listed_by_its_clicks(
    index: CandidateIndex,
) -> None:
    assert index.propose("content", ["loose"], 5)[0] == ()
    assert "loose" in index.propose("covisitation", ["shoe-1"], 5)[0]


def test_items_without_a_row_in_the_catalogue_are_not_harmed(tmp_path: Path) -> None:
    """What their clicks say of them is the same with a catalogue that does not name them."""
    rows = [
        row
        for n in range(4)
        for row in visit(f"v{n}", ["bare", "other", "shoe-1"] if n else ["other", "bare"])
    ]
    indexes = [loaded(rows, tmp_path / "with", catalogue()), loaded(rows, tmp_path / "without")]
    clicked = ("session", "transition", "sequential", "covisitation", "two_hop", "knn")
    for source in clicked:
        (found, scores), (right, values) = (i.propose(source, ["bare"], 9) for i in indexes)
        assert found == right
        assert list(scores) == list(values)
    assert indexes[0].manifest.items == len(SHOP) + 2
    for source in ("content", "trending"):
        assert indexes[0].propose(source, ["bare"], 9)[0] == ()
        assert "bare" not in indexes[0].propose(source, ["shoe-1"], 9)[0]
    assert set(indexes[0].candidates(["bare"], 3, ["bare"]).items[:2]) == {"other", "shoe-1"}
    assert "bare" in indexes[0].candidates(["shoe-1"], 3, ["shoe-1"]).items


def test_what_the_catalogue_said_too_late_is_not_known(tmp_path: Path) -> None:
    index = built(tmp_path / "late", catalogue(CUTOFF + 1))
    assert index.number("shoe-new") is None
    assert index.propose("content", ["shoe-1"], 5)[0] == ()
    assert built(tmp_path / "none", None).propose("trending", ["shoe-1"], 5)[0] == ()


def test_trending_is_what_is_clicked_lately_in_the_category(tmp_path: Path) -> None:
    rows = [
        *visit("old", ["shoe-1"] * 3, CUTOFF - 60 * DAY),
        *visit("new", ["shoe-2", "shoe-3", "hat-1"], CUTOFF - DAY),
        *visit("newer", ["shoe-2"], CUTOFF - DAY),
    ]
    index = loaded(rows, tmp_path / "known", catalogue())
    found, scores = index.propose("trending", ["shoe-new"], 5)
    assert found == ("shoe-2", "shoe-3", "shoe-1")
    assert scores[0] == pytest.approx(2 * scores[1], rel=1e-3)
