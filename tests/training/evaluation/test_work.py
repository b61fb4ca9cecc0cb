"""The folder of a run: what is taken from it, what is not, and what another run may not take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from contracts.candidates import SOURCES
from contracts.errors import UsageError
from tests.training.evaluation import tables
from training.evaluation import peers, report
from training.evaluation.files import session_table
from training.evaluation.report import Asked, digest, encoder_digest, evaluate_shop
from training.evaluation.run import Evaluation, Options, Ranked, left_out
from training.evaluation.work import LEARNED_FILE, PEER_FILE, RANKED_FILE, Work

FIGURES = ("hit_rate@10", "mrr@20", "recall@100", "lists", "segments", "learned")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    train, test = tables.sessions(400, 1), tables.sessions(60, 2)
    return tables.write(folder / "t.parquet", train, test)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with every `fit` and every `rank`."""
    calls: list[str] = []

    def counted(name: str) -> None:
        true: Callable[..., Any] = getattr(Evaluation, name)

        def call(self: Evaluation, *given: Any) -> Any:
            calls.append(name)
            return true(self, *given)

        monkeypatch.setattr(Evaluation, name, call)

    counted("fit")
    counted("rank")
    return calls


def evaluated(table: Path, folder: Path) -> dict[str, Any]:
    found = evaluate_shop(session_table(table), tables.SMALL, Asked(0), folder, lambda *step: None)
    whole: dict[str, Any] = json.loads(json.dumps(found, default=float))
    return whole


def ranked() -> Ranked:
    return Ranked(
        {"ranker": np.array([1.0, np.inf]), "knn": np.array([2.5, 3.0])},
        {"merged": np.array([True, False])},
        np.array([[0, 1], [1, -1]], dtype=np.int32),
        ("plain", "ünïcödé ✓"),
    )


def test_a_run_that_ended_after_its_ranks_goes_on_from_them(
    table: Path, tmp_path: Path, fits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(peers, "simple", ended)
        with pytest.raises(KeyboardInterrupt):
            evaluated(table, tmp_path / "cut")
    assert fits == ["fit", "rank"]
    resumed = evaluated(table, tmp_path / "cut")
    assert fits == ["fit", "rank"]
    whole = evaluated(table, tmp_path / "whole")
    assert fits == ["fit", "rank"] * 2
    for name in FIGURES:
        assert resumed[name] == whole[name], name


def test_a_run_that_ended_before_its_ranks_were_whole_ranks_again(
    table: Path, tmp_path: Path, fits: list[str]
) -> None:
    before = evaluated(table, tmp_path)
    whole = (tmp_path / RANKED_FILE).read_bytes()
    (tmp_path / RANKED_FILE).unlink()
    (tmp_path / f".{RANKED_FILE}").write_bytes(whole[: len(whole) // 2])
    again = evaluated(table, tmp_path)
    assert fits == ["fit", "rank"] * 2
    assert again["mrr@20"] == before["mrr@20"]
    assert (tmp_path / RANKED_FILE).is_file()


def test_what_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    work = Work(tmp_path / "new" / "folder")
    work.keep_ranked(ranked(), {"learned": {"trees": 3}})
    kept_ranked = work.ranked()
    assert kept_ranked is not None
    found, learned = kept_ranked
    assert learned == {"learned": {"trees": 3}}
    assert found.items == ranked().items
    np.testing.assert_array_equal(found.lists, ranked().lists)
    assert found.lists.dtype == np.int32
    for kind in ("ranks", "recalled"):
        kept, given = getattr(found, kind), getattr(ranked(), kind)
        assert set(kept) == set(given)
        for name, values in given.items():
            np.testing.assert_array_equal(kept[name], values)
            assert kept[name].dtype == values.dtype
    assert not list((tmp_path / "new" / "folder").glob(".*"))


@pytest.mark.parametrize("lost", [RANKED_FILE, LEARNED_FILE])
def test_ranks_without_what_was_learned_are_not_taken(tmp_path: Path, lost: str) -> None:
    work = Work(tmp_path)
    work.keep_ranked(ranked(), {})
    assert work.ranked() is not None
    (tmp_path / lost).unlink()
    assert work.ranked() is None


def test_ranks_of_a_peer_are_taken_for_as_many_queries_only(tmp_path: Path) -> None:
    work = Work(tmp_path)
    assert work.peer(3) is None
    work.keep_peer(np.array([1.0, 4.0, np.inf]), {"fit": 0.5, "recommend": 2.0})
    assert work.peer(2) is None
    found = work.peer(3)
    assert found is not None
    assert found[0].tolist() == [1.0, 4.0, np.inf]
    assert found[1] == {"fit": 0.5, "recommend": 2.0}


def half(file: IO[bytes], **arrays: Any) -> None:
    """Instead of numpy's `savez`: as if the machine stopped."""
    file.write(b"PK")
    file.flush()
    raise KeyboardInterrupt


def test_a_half_written_file_is_not_taken_and_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, ranks = Work(tmp_path), np.arange(3.0)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            work.keep_peer(ranks, {"fit": 1.0})
    assert work.peer(3) is None
    work.keep_peer(ranks, {"fit": 1.0})
    work.keep_ranked(ranked(), {})
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            work.keep_peer(ranks + 1, {})
        with pytest.raises(KeyboardInterrupt):
            work.keep_ranked(ranked(), {})
    found = work.peer(3)
    assert found is not None
    assert found[0].tolist() == [0.0, 1.0, 2.0]
    read = work.ranked()
    assert read is not None
    assert read[0].items == ranked().items


@pytest.mark.parametrize("content", [b"", b"[]", b"PK", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    work = Work(tmp_path)
    work.keep_ranked(ranked(), {})
    work.keep_peer(np.arange(3.0), {"fit": 1.0})
    (tmp_path / PEER_FILE).write_bytes(content)
    assert work.peer(3) is None
    for name in (RANKED_FILE, LEARNED_FILE):
        work.keep_ranked(ranked(), {})
        assert work.ranked() is not None
        (tmp_path / name).write_bytes(content)
        assert work.ranked() is None


def test_a_source_is_left_out_with_what_it_says_and_no_group_of_its_name() -> None:
    assert left_out(["session"]) == (("session",), frozenset({"session_score", "session_rank"}))
    assert left_out(["sequential"])[1] == {
        "sequential_score",
        "sequential_rank",
        "sequential_share",
    }
    sources, visit = left_out(["group:session"])
    assert sources == ()
    assert {"session_events", "session_duration"} <= visit
    assert "session_rank" not in visit
    assert "knn_next" in left_out(["knn"])[1]
    assert left_out(["item_activity", "price"])[0] == ()
    with pytest.raises(UsageError, match="nothing would propose"):
        left_out(SOURCES)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--work: .* cannot be made"):
        Work(tmp_path / "file" / "run")


def others() -> list[Options]:
    sources, features = left_out(["knn"])
    return [
        replace(tables.SMALL, seed=1),
        replace(tables.SMALL, queries=1999),
        replace(tables.SMALL, embedding=True),
        replace(tables.SMALL, tune=False),
        replace(tables.SMALL, without=features),
        replace(tables.SMALL, without=features, without_sources=sources),
        replace(tables.SMALL, ranker={"num_leaves": 9}),
        replace(tables.SMALL, label_weights={"cart": 2.0}),
    ]


def test_each_option_names_another_folder(table: Path) -> None:
    names = [digest(table, options) for options in [tables.SMALL, *others()]]
    assert len(set(names)) == len(names)
    assert digest(table, tables.SMALL, "other events") not in names


def test_the_folder_is_named_by_content_and_not_by_place(table: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other name.parquet"
    copied.write_bytes(table.read_bytes())
    assert digest(copied, tables.SMALL) == digest(table, tables.SMALL)


def test_where_features_mean_something_else_it_is_another_folder(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(table, tables.SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(report, "fingerprint", lambda: "other")
        assert digest(table, tables.SMALL) != before
    monkeypatch.setattr(report, "code_version", lambda: "other")
    assert digest(table, tables.SMALL) != before


def test_encoders_are_of_the_code_and_the_packages_that_learned_them(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        encoder_digest(table, tables.SMALL),
        encoder_digest(table, replace(tables.SMALL, count=9)),
    }
    assert len(names) == 1  # runs with other options share them
    monkeypatch.setattr(report, "_versions", lambda: {"jax": "another"})
    names |= {encoder_digest(table, tables.SMALL), digest(table, tables.SMALL)}
    monkeypatch.setattr(report, "_versions", lambda: {"code": "another"})
    names |= {encoder_digest(table, tables.SMALL), digest(table, tables.SMALL)}
    assert len(names) == 5


@pytest.mark.parametrize(
    "damage",
    [{"seconds": None}, {"memory_mb": 3}, {"learned": []}, {"peak_memory_mb": "much"}],
)
def test_a_run_whose_notes_are_damaged_is_made_anew(
    table: Path, tmp_path: Path, fits: list[str], damage: dict[str, Any]
) -> None:
    before = evaluated(table, tmp_path)
    notes = json.loads((tmp_path / LEARNED_FILE).read_text())
    (tmp_path / LEARNED_FILE).write_text(json.dumps(notes | damage))
    assert evaluated(table, tmp_path)["mrr@20"] == before["mrr@20"]
    assert fits == ["fit", "rank"] * 2


def test_ranks_of_fewer_queries_are_not_taken(table: Path, tmp_path: Path, fits: list[str]) -> None:
    before = evaluated(table, tmp_path)
    with np.load(tmp_path / RANKED_FILE) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(tmp_path / RANKED_FILE, **arrays | {"rank.ranker": arrays["rank.ranker"][:-1]})
    assert evaluated(table, tmp_path)["mrr@20"] == before["mrr@20"]
    assert fits == ["fit", "rank"] * 2


@pytest.mark.parametrize("lost", ["rank.ranker", "recalled.merged", "lists"])
def test_ranks_that_lack_an_array_are_not_taken(tmp_path: Path, lost: str) -> None:
    work = Work(tmp_path)
    work.keep_ranked(ranked(), {})
    with np.load(tmp_path / RANKED_FILE) as file:
        arrays = {name: file[name] for name in file.files if name != lost}
    np.savez(tmp_path / RANKED_FILE, **arrays)
    assert work.ranked() is None


def test_a_folder_where_a_file_belongs_is_told(tmp_path: Path) -> None:
    (tmp_path / RANKED_FILE).mkdir()
    (tmp_path / RANKED_FILE / "x").touch()
    with pytest.raises(UsageError, match=f"{RANKED_FILE} cannot be written"):
        Work(tmp_path).keep_ranked(ranked(), {})
