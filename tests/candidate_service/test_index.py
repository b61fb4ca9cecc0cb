"""The index in this process: behaviour, planted answers, what it may know, damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candidate_service.__main__ import main
from candidate_service.build import build_for
from candidate_service.index import CandidateIndex, all_parameters, build_index
from contracts.candidates import SOURCES, CandidateSet, unknown_signals
from contracts.errors import ReleaseError, UsageError
from contracts.events import EventType
from contracts.settings import Settings
from tests.candidate_service.behaviour import Ask, Behaviour, MergedBehaviour, check
from tests.candidate_service.shop import (
    CUTOFF,
    DAY,
    events,
    planted_index,
    planted_rows,
    planted_vectors,
    vectors,
    visit,
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CandidateIndex:
    return planted_index(tmp_path_factory.mktemp("indexes"))


class TestIndex(MergedBehaviour):
    @pytest.fixture
    def ask(self, index: CandidateIndex) -> Ask:
        return index.candidates


@pytest.mark.parametrize("source", SOURCES)
class TestEachSource(Behaviour):
    @pytest.fixture
    def ask(self, index: CandidateIndex, source: str) -> Ask:
        def ask(items: Sequence[str], count: int, exclude: Sequence[str] = ()) -> CandidateSet:
            found, scores = index.propose(source, items, count, exclude)
            shape = (len(found), len(SOURCES))
            columns, ranks = np.full(shape, np.nan, "f4"), np.full(shape, np.nan, "f4")
            column = SOURCES.index(source)
            columns[:, column], ranks[:, column] = scores, np.arange(1, len(found) + 1)
            return CandidateSet(found, columns, ranks, unknown_signals(len(found)))

        return ask


_IDS = st.one_of(st.sampled_from([f"i{number:02d}" for number in range(40)]), st.text())


@given(st.lists(_IDS), st.integers(-3, 2000), st.lists(_IDS))
def test_any_text_gets_an_answer(items: list[str], count: int, exclude: list[str]) -> None:
    check(_planted().candidates(items, count, exclude), items, max(count, 0), exclude)


def _planted(made: list[CandidateIndex] = []) -> CandidateIndex:  # noqa: B006  # made once
    if not made:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            made.append(planted_index(Path(folder)))
    return made[0]


def test_threads_share_an_index(index: CandidateIndex) -> None:
    visits = [[f"i{number % 40:02d}"] for number in range(200)]
    alone = [index.candidates(items, 20).items for items in visits]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda items: index.candidates(items, 20).items, visits)) == alone


def test_quotas_give_every_source_its_best(tmp_path: Path) -> None:
    quotas = {name: {"quota": 0.1, "weight": 0.0} for name in SOURCES}
    quotas["popular"]["weight"] = 1.0
    version = _build(tmp_path, planted_rows(), parameters=quotas)
    index = CandidateIndex.load(tmp_path / version)
    found = set(index.candidates(["i20", "i05"], 20).items)
    for source in SOURCES:
        best, _ = index.propose(source, ["i20", "i05"], 2)
        assert set(best) <= found


def test_a_source_that_is_left_out_proposes_and_says_nothing(index: CandidateIndex) -> None:
    visited = ["i20", "i05"]
    for name in SOURCES:
        other = index.without([name])
        found = other.candidates(visited, 40)
        place = SOURCES.index(name)
        assert other.propose(name, visited, 40)[0] == ()
        assert np.isnan(found.ranks[:, place]).all()
        assert np.isnan(found.scores[:, place]).all()
        tuned = other.asked_with({name: {"weight": 9.0}})
        assert tuned.candidates(visited, 40).items == found.items
    every = set(index.candidates(visited, 40).items)
    alone = index.without([name for name in SOURCES if name != "session"])
    assert set(alone.candidates(visited, 40).items) == set(visited) < every


# --- what it may know ---------------------------------------------------------------------------


def test_nothing_at_or_after_the_cutoff_is_known(tmp_path: Path) -> None:
    later = visit("later", ["i05", "i30", "new"] * 50, CUTOFF + DAY) + visit("at", ["at"], CUTOFF)
    alone = _build(tmp_path / "a", planted_rows(), planted_vectors())
    leaky = pa.concat_tables([planted_vectors(), vectors({"new": [1, 0], "at": [0, 1]})])
    assert _build(tmp_path / "b", planted_rows() + later, leaky) == alone
    index = CandidateIndex.load(tmp_path / "b" / alone)
    assert "new" not in index
    assert "at" not in index
    assert "i05" in index


def test_only_interest_counts(tmp_path: Path) -> None:
    noise: list[tuple[str, int, EventType, str | None]] = [
        ("v", CUTOFF - 9, EventType.remove_from_cart, "removed"),
        ("v", CUTOFF - 8, EventType.search, None),
        ("v", CUTOFF - 7, EventType.page_view, "page"),
    ]
    index = CandidateIndex.load(tmp_path / _build(tmp_path, visit("v", ["a", "b"]) + noise))
    assert len(index) == 2


def test_what_became_known_at_the_cutoff_is_not_in_the_index(tmp_path: Path) -> None:
    table = events(visit("v", ["a", "b"]) + visit("w", ["late"]))
    late = [CUTOFF if item == "late" else CUTOFF - 1 for item in table["item_id"].to_pylist()]
    place = table.column_names.index("received")
    told_late = table.set_column(place, "received", pa.array(late, pa.int64()))
    manifest = build_index(told_late, None, CUTOFF, tmp_path)
    assert len(CandidateIndex.load(tmp_path / manifest.version)) == 2


def test_same_input_in_any_order_is_the_same_version(tmp_path: Path) -> None:
    table = events(planted_rows())
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    first = build_index(table, planted_vectors(), CUTOFF, tmp_path / "a")
    again = build_index(shuffled, planted_vectors().slice(0), CUTOFF, tmp_path / "b")
    assert first == again
    assert build_index(table, None, CUTOFF, tmp_path / "a").version != first.version
    assert (
        build_index(table, planted_vectors(), CUTOFF - 1, tmp_path / "a").version != first.version
    )
    assert build_index(table, planted_vectors(), CUTOFF, tmp_path / "a") == first
    assert not list(tmp_path.glob("*/.building*"))


def test_recent_clicks_are_more_popular(tmp_path: Path) -> None:
    rows = [row for n in range(5) for row in visit(f"old{n}", ["old"], CUTOFF - 60 * DAY)]
    rows += [row for n in range(3) for row in visit(f"new{n}", ["new"])]
    index = CandidateIndex.load(tmp_path / _build(tmp_path, rows))
    assert index.candidates([], 2).items == ("new", "old")


def test_nearer_items_of_a_visit_go_together_more(tmp_path: Path) -> None:
    index = CandidateIndex.load(tmp_path / _build(tmp_path, visit("v", list("abcd"))))
    found, scores = index.propose("sequential", ["a"], 9)
    assert found == ("b", "c", "d")
    np.testing.assert_allclose(scores / scores[0], [1, 1 / 2, 1 / 3], rtol=1e-3)
    found, scores = index.propose("covisitation", ["b"], 9)
    assert found[:2] == ("a", "c")  # before and after alike
    np.testing.assert_allclose(scores / scores[0], [1, 1, np.exp(-1 / 3)], rtol=1e-3)


def test_the_last_item_counts_most(tmp_path: Path) -> None:
    rows = visit("v", ["a", "x"]) + visit("w", ["b", "y"])
    parameters = {"covisitation": {"step_weight": 0.25}}
    index = CandidateIndex.load(tmp_path / _build(tmp_path, rows, parameters=parameters))
    found, scores = index.propose("covisitation", ["a", "b"], 9)
    assert found == ("y", "x")
    np.testing.assert_allclose(scores[1] / scores[0], 0.25, rtol=1e-5)


def test_a_row_keeps_its_strongest_neighbours(tmp_path: Path) -> None:
    rows = [r for n in range(9) for m in range(n + 1) for r in visit(f"{n}.{m}", ["a", f"n{n}"])]
    parameters = {"covisitation": {"neighbours": 3.0}}
    index = CandidateIndex.load(tmp_path / _build(tmp_path, rows, parameters=parameters))
    assert index.propose("covisitation", ["a"], 99)[0] == ("n8", "n7", "n6")


def test_own_items_come_back_latest_first(index: CandidateIndex) -> None:
    found, _ = index.propose("session", ["i01", "i02", "i03", "i01", "i09"], 10)
    assert found == ("i09", "i01", "i03", "i02")


def test_nearest_vectors(index: CandidateIndex) -> None:
    found, scores = index.propose("vector", ["i10"], 4)
    assert (
        found[0] == "i10"
    )  # itself; whether it may be proposed is said where the answer is merged
    assert set(found[1:3]) == {"i09", "i11"}
    np.testing.assert_allclose(scores[:2], [1, np.cos(2 * np.pi / 40)], rtol=1e-5)


def test_codes_find_what_the_exact_search_finds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    ids = [f"n{number:03d}" for number in range(500)]
    values = dict(zip(ids, generator.normal(size=(500, 8)).tolist(), strict=True))
    exact = CandidateIndex.load(tmp_path / _build(tmp_path, visit("v", ids), vectors(values)))
    coded = {"vector": {"exact_up_to": 100.0, "rescored": 4.0}}
    near = CandidateIndex.load(tmp_path / _build(tmp_path, visit("v", ids), vectors(values), coded))
    assert "vector.codes" in near.manifest.files
    assert near.propose("vector", ["n000"], 50)[0] == exact.propose("vector", ["n000"], 50)[0]


def test_without_vectors_the_others_answer(tmp_path: Path) -> None:
    index = CandidateIndex.load(tmp_path / _build(tmp_path, planted_rows()))
    assert (index.manifest.vectors, index.manifest.dimensions) == (0, 0)
    assert index.candidates(["i05"], 10, ["i05"]).items[0] == "i06"
    assert index.propose("vector", ["i05"], 10)[0] == ()


def test_useless_vectors_are_left_out(tmp_path: Path) -> None:
    table = vectors({"i01": [0, 0], "i02": [float("nan"), 1], "i03": [1, 1], "foreign": [1, 1]})
    index = CandidateIndex.load(tmp_path / _build(tmp_path, planted_rows(), table))
    assert index.manifest.vectors == 1
    assert index.propose("vector", ["i01"], 5)[0] == ()


# --- wrong input --------------------------------------------------------------------------------


def test_wrong_input_is_told(tmp_path: Path) -> None:
    table = events(planted_rows())
    _refused(
        "visit, time, received, key", build_index, table.drop(["visit"]), None, CUTOFF, tmp_path
    )
    _refused("no event of interest", build_index, table, None, 5, tmp_path)
    _refused("no events to read", build_index, tmp_path / "none", None, CUTOFF, tmp_path)
    uneven = vectors({"i01": [1.0], "i02": [1.0, 2.0]})
    _refused(r"lengths \[1, 2\]", build_index, table, uneven, CUTOFF, tmp_path)
    _refused("session.dekay", all_parameters, {"session": {"dekay": 1}})
    _refused("add up", all_parameters, {"session": {"quota": 0.9}, "popular": {"quota": 0.9}})


def _refused(text: str, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(UsageError, match=text):
        call(*arguments)


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no folder": (lambda f: f.rename(f.with_name("moved")), "does not exist"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "not whole"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "no manifest"),
    "other format": (lambda f: _edit(f, format=99), "format 99"),
    "edited": (lambda f: _edit(f, rows=1), "was changed"),
    "file gone": (lambda f: (f / "popular.share.npy").unlink(), "popular.share.npy is missing"),
    "cut short": (lambda f: _write(f / "items.text.npy", -1), "bytes, its manifest says"),
    "bit flipped": (lambda f: _write(f / "items.text.npy", None), "checksum"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_and_mended(tmp_path: Path, name: str) -> None:
    version = _build(tmp_path, planted_rows())
    damage, text = DAMAGES[name]
    damage(tmp_path / version)
    with pytest.raises(ReleaseError, match=text) as caught:
        CandidateIndex.load(tmp_path / version)
    assert "build it again" in str(caught.value)
    assert _build(tmp_path, planted_rows()) == version
    assert CandidateIndex.load(tmp_path / version).version == version


def test_without_checksums_sizes_still_count(tmp_path: Path) -> None:
    folder = tmp_path / _build(tmp_path, planted_rows())
    _write(folder / "popular.share.npy", None)
    CandidateIndex.load(folder, verify=False)
    _write(folder / "popular.share.npy", -1)
    with pytest.raises(ReleaseError, match="bytes"):
        CandidateIndex.load(folder, verify=False)


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("candidate_service.files._write_synced", full)
    with pytest.raises(OSError, match="no space"):
        _build(tmp_path, planted_rows())
    assert not list(tmp_path.iterdir())


def _edit(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _write(path: Path, end: int | None) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content[:end]))


# --- the step of the pipeline -------------------------------------------------------------------


def test_build_from_the_offline_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    offline = Path(settings.offline)
    _parquet(events(planted_rows()), offline / "events_clean")
    _parquet(vectors({"i01": [1.0]}), offline / f"item_vectors/cutoff={CUTOFF - 1}")
    assert build_for(settings, CUTOFF).vectors == 0  # there are none of this cut-off
    _parquet(planted_vectors(), offline / f"item_vectors/cutoff={CUTOFF}")
    steps: list[str] = []
    manifest = build_for(settings, CUTOFF, steps.append)
    assert manifest.vectors == 40
    assert steps == ["read events", *[f"build {name}" for name in SOURCES], "write index"]
    assert CandidateIndex.load(settings.indexes / manifest.version).version == manifest.version
    assert build_for(settings, CUTOFF, embedding=False).vectors == 0
    monkeypatch.setattr(Settings, "from_environment", lambda: settings)
    assert main([str(CUTOFF)]) == 0
    assert main(["5"]) == 2


def _parquet(table: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "part-0.parquet")


def _build(
    folder: Path,
    rows: Sequence[tuple[str, int, EventType, str | None]],
    vectors: pa.Table | None = None,
    parameters: dict[str, dict[str, float]] | None = None,
) -> str:
    return build_index(events(rows), vectors, CUTOFF, folder, parameters=parameters).version
