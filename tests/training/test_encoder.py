"""The session encoder: what it learns, how it is kept, and that numpy serves what JAX learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from candidate_service.encoder import ENCODER_FILE, WEIGHTS, Encoder, read_weights
from candidate_service.history import History, read_history
from contracts.errors import UsageError
from contracts.settings import Settings
from tests.candidate_service.shop import CUTOFF, Row, events, visit
from training.encoder import artefact, learn, model, step
from training.encoder.learn import Encoded, Options, Visits

ITEMS = 40
OPTIONS = Options(members=2, dimensions=16, least_steps=150, negatives=64)
Ints = npt.NDArray[np.int32]


def ring(walks: int = 400, seed: int = 0, items: int = ITEMS) -> Visits:
    """Visits of 4 clicks: each item is followed by the next one of a ring."""
    starts = np.random.default_rng(seed).integers(items, size=walks)
    clicks = (starts[:, None] + np.arange(4)) % items
    return Visits(
        clicks.reshape(-1).astype(np.int32), np.arange(walks + 1, dtype=np.int64) * 4,
        np.ones(walks), tuple(f"i{number:02d}" for number in range(items)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned() -> Encoded:
    return learn.learn(ring(), OPTIONS)


def queries(encoded: Encoded, clicks: Ints) -> npt.NDArray[np.float32]:
    """By JAX, member by member, side by side."""
    members = len(encoded.weights["attend_bias"])
    blocks = encoded.vectors.reshape(len(encoded.ids), members, -1) * np.sqrt(members)
    parts = []
    for member in range(members):
        weights = {name: values[member] for name, values in encoded.weights.items()}
        found = model.queries(weights, blocks[clicks][None, :, member])
        parts.append(np.asarray(found)[0, -1])
    return np.asarray(np.concatenate(parts) / np.sqrt(members), np.float32)


@pytest.mark.parametrize("count", [1, 2, 7, model.LENGTH])
def test_numpy_serves_what_jax_learned(learned: Encoded, count: int) -> None:
    clicks = np.random.default_rng(count).integers(ITEMS, size=count).astype(np.int32)
    served = Encoder(learned.weights).query(learned.vectors[clicks])
    np.testing.assert_allclose(served, queries(learned, clicks), atol=1e-5)
    assert np.linalg.norm(served) == pytest.approx(1, abs=1e-5)


def test_what_goes_with_an_item_is_nearest_to_its_query(learned: Encoded) -> None:
    encoder, right = Encoder(learned.weights), 0
    for item in range(ITEMS):
        cosines = learned.vectors @ encoder.query(learned.vectors[[item]])
        cosines[item] = -1
        right += (int(np.argmax(cosines)) - item) % ITEMS in (1, 2, ITEMS - 1, ITEMS - 2)
    assert right > 0.9 * ITEMS  # by chance 1 in 10


def test_what_always_follows_comes_first() -> None:
    """Items in pairs, the first of a pair always followed by the second, the pairs in any order."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(ITEMS // 2, size=(300, 2))
    clicks = np.stack([pairs * 2, pairs * 2 + 1], axis=2).reshape(-1).astype(np.int32)
    visits = Visits(clicks, np.arange(301, dtype=np.int64) * 4, np.ones(300), ring().ids)
    pair = learn.learn(visits, replace(OPTIONS, members=1))
    encoder, right = Encoder(pair.weights), 0
    for item in range(0, ITEMS, 2):
        other = (item + 2) % ITEMS  # where the visit was before
        cosines = pair.vectors @ encoder.query(pair.vectors[[other, item]])
        cosines[[other, item]] = -1
        right += int(np.argmax(cosines)) == item + 1
    assert right > 0.7 * ITEMS / 2  # by chance 1 in 38


def test_the_newer_click_counts_more(learned: Encoded) -> None:
    """The newer of two clicks weighs more: the query lies nearer to it."""
    encoder = Encoder(learned.weights)
    newer = [
        float(learned.vectors[item] @ encoder.query(learned.vectors[[other, item]]))
        - float(learned.vectors[other] @ encoder.query(learned.vectors[[other, item]]))
        for item, other in ((n, (n + 1) % ITEMS) for n in range(ITEMS))
    ]
    assert np.mean(np.array(newer) > 0) > 0.8  # half, were they alike


def test_vectors_are_unit_and_one_seed_gives_one_answer(learned: Encoded) -> None:
    np.testing.assert_allclose(np.linalg.norm(learned.vectors, axis=1), 1, atol=1e-5)
    short = replace(OPTIONS, members=1, least_steps=1, epochs=1)
    first, again = (learn.learn(ring(), short) for _ in range(2))
    np.testing.assert_array_equal(again.vectors, first.vectors)
    for name in WEIGHTS:
        np.testing.assert_array_equal(again.weights[name], first.weights[name])
    other = learn.learn(ring(), replace(short, seed=1))
    assert not np.allclose(other.vectors, first.vectors, atol=0.1)
    one, two = learned.vectors[:, :16], learned.vectors[:, 16:]
    assert not np.allclose(one, two, atol=0.1)  # so the members differ too


def test_a_warm_start_keeps_what_it_knew_and_learns_what_is_new(learned: Encoded) -> None:
    few = replace(OPTIONS, least_steps=1, least_warm_steps=1, warm_epochs=1, warm_rate=1e-6)
    moved = ring(items=ITEMS - 5)
    visits = Visits(moved.items, moved.starts, moved.ages, (*moved.ids[5:], *[f"new{n}" for n in range(5)]))  # fmt: skip
    warm = learn.learn(visits, few, learned)
    before = dict(zip(learned.ids, learned.vectors, strict=True))
    after = dict(zip(warm.ids, warm.vectors, strict=True))
    both = sorted(set(before) & set(after))
    assert len(both) == ITEMS - 10
    assert min(float(before[name] @ after[name]) for name in both) > 0.99
    cold = learn.learn(visits, few)
    assert float(np.mean([before[n] @ cold.vectors[cold.ids.index(n)] for n in both])) < 0.5


def test_a_start_of_another_shape_is_not_used(learned: Encoded) -> None:
    few = replace(OPTIONS, members=1, dimensions=8, least_steps=1, epochs=1)
    np.testing.assert_array_equal(
        learn.learn(ring(), few, learned).vectors, learn.learn(ring(), few).vectors
    )


def test_too_little_teaches_nothing() -> None:
    with pytest.raises(UsageError, match="40 clicks: the encoder needs at least 200"):
        learn.learn(ring(10), OPTIONS)


def test_visits_of_one_click_do_no_harm() -> None:
    visits = ring()
    single = Visits(
        np.append(visits.items, [3, 4]).astype(np.int32), np.append(visits.starts, [1601, 1602]),
        np.append(visits.ages, [1, 1]), visits.ids,
    )  # fmt: skip
    assert np.isfinite(
        learn.learn(single, replace(OPTIONS, members=1, least_steps=20)).vectors
    ).all()


def test_long_visits_are_learned_part_by_part() -> None:
    """Every next click is a label once."""
    long = Visits(np.arange(90, dtype=np.int32), np.array([0, 90]), np.zeros(1), ())
    parts = learn._parts(long, 60.0)
    labels = [
        place + 1
        for first, clicks, labelled in zip(parts.first, parts.clicks, parts.labelled, strict=True)
        for place in range(int(labelled), int(first + clicks))
    ]
    assert labels == list(range(1, 90))
    assert parts.clicks.max() == model.LENGTH


# --- the artefact --------------------------------------------------------------------------------


def test_an_artefact_comes_back_as_it_was(learned: Encoded, tmp_path: Path) -> None:
    folder = tmp_path / "cutoff=1"
    artefact.write(folder, replace(learned, ids=learned.ids[:3], vectors=learned.vectors[:3]))
    artefact.write(folder, learned)  # takes the place of the one before
    read = artefact.read(folder)
    assert read.ids == learned.ids
    np.testing.assert_array_equal(read.vectors, learned.vectors)
    served = read_weights(folder)
    assert set(read.weights) == set(served) == set(WEIGHTS)
    for name in WEIGHTS:
        np.testing.assert_array_equal(read.weights[name], learned.weights[name])
        np.testing.assert_array_equal(served[name], learned.weights[name])
    assert [path.name for path in tmp_path.iterdir()] == ["cutoff=1"]


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "no archive": lambda path: path.write_text("no archive"),
    "of another version": lambda path: np.savez(path, attend_bias=np.zeros((2, 20))),
    "pickled": lambda path: np.savez(
        path,
        **{name: np.array([{}], dtype=object) for name in WEIGHTS},  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_encoder_is_told(learned: Encoded, tmp_path: Path, name: str) -> None:
    artefact.write(tmp_path / "a", learned)
    DAMAGES[name](tmp_path / "a" / ENCODER_FILE)
    with pytest.raises(UsageError, match="holds no encoder of this version"):
        read_weights(tmp_path / "a")


def test_vectors_without_an_encoder_are_no_error(learned: Encoded, tmp_path: Path) -> None:
    artefact.write(tmp_path / "a", learned)
    (tmp_path / "a" / ENCODER_FILE).unlink()
    assert read_weights(tmp_path / "a") == {}
    assert read_weights(tmp_path / "none") == {}


def test_an_index_reads_the_vectors_and_the_encoder(learned: Encoded, tmp_path: Path) -> None:
    """The folder is read as Parquet though the encoder's file lies beside the vectors."""
    artefact.write(tmp_path / "a", learned)
    known = read_history(events(visit("v", ["i03", "i00", "elsewhere"])), tmp_path / "a", CUTOFF)
    assert known.vectors is not None
    assert [known.ids[item] for item in known.vectors.items] == ["i00", "i03"]
    np.testing.assert_allclose(known.vectors.values, learned.vectors[[0, 3]], atol=1e-6)
    for name in WEIGHTS:
        np.testing.assert_array_equal(known.vectors.encoder[name], learned.weights[name])


def test_a_failed_write_leaves_what_was_there(
    learned: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact.write(tmp_path / "a", learned)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        artefact.write(tmp_path / "a", replace(learned, ids=learned.ids[::-1]))
    assert artefact.read(tmp_path / "a").ids == learned.ids
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def walks() -> list[Row]:
    return [
        row
        for start in range(80)
        for row in visit(f"v{start}", [f"i{(start + step) % 40:02d}" for step in (0, 1, 1, 2)])
    ]


def history(cutoff: int) -> History:
    return read_history(events(walks()), None, cutoff)


# --- all cut-offs of a training ------------------------------------------------------------------

FIRST, SECOND = CUTOFF, CUTOFF + 1000
Told = list[tuple[Visits, Encoded | None]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What `learn_all` learns from: the visits and the start of each call, instead of learning."""
    calls: Told = []

    def learn_nothing(
        visits: Visits, options: Options, start: Encoded | None, report: step.Report
    ) -> Encoded:
        calls.append((visits, start))
        report(1, 1)
        rng = np.random.default_rng(len(calls))
        values = rng.normal(size=(len(visits.ids), options.dimensions)).astype(np.float32)
        weights = model.initial_weights(options.dimensions, rng)
        return Encoded(visits.ids, values, {name: w[None] for name, w in weights.items()})

    monkeypatch.setattr(step, "learn", learn_nothing)
    return calls


def learned_all(
    folder: Path, cutoffs: Sequence[int], *, reuse: bool = False, repeats: bool = False,
    warm: bool = True,
) -> dict[int, Path]:  # fmt: skip
    return step.learn_all(
        history, lambda cutoff: folder / f"cutoff={cutoff}", cutoffs, OPTIONS,
        reuse=reuse, repeats=repeats, warm=warm,
    )  # fmt: skip


def test_a_real_encoder_is_learned_of_each_cutoff(tmp_path: Path) -> None:
    few = replace(OPTIONS, members=1, least_steps=1, epochs=1)
    old = CUTOFF - 900 * 86_400_000  # before the first event
    done: list[tuple[int, int]] = []
    found = step.learn_all(
        history, lambda cutoff: tmp_path / f"{cutoff}", [CUTOFF, old], few,
        report=lambda *of: done.append(of),
    )  # fmt: skip
    assert found == {CUTOFF: tmp_path / f"{CUTOFF}"}
    assert artefact.read(found[CUTOFF]).vectors.shape == (40, OPTIONS.dimensions)
    assert done[-1][0] == done[-1][1]


def test_finished_cutoffs_are_not_learned_again(tmp_path: Path, told: Told) -> None:
    found = learned_all(tmp_path, [FIRST])
    assert learned_all(tmp_path, [FIRST, SECOND, FIRST], reuse=True) == {
        **found, SECOND: tmp_path / f"cutoff={SECOND}",
    }  # fmt: skip
    assert len(told) == 2
    start = told[1][1]  # what was found stands at the start of the next
    assert start is not None
    np.testing.assert_array_equal(start.vectors, artefact.read(found[FIRST]).vectors)
    learned_all(tmp_path, [FIRST])  # asked anew
    assert len(told) == 3


def test_each_cutoff_starts_from_the_one_before_unless_all_are_cold(
    tmp_path: Path, told: Told
) -> None:
    learned_all(tmp_path, [SECOND, FIRST])
    assert told[0][1] is None
    assert told[1][1] is not None
    np.testing.assert_array_equal(
        told[1][1].vectors, artefact.read(tmp_path / f"cutoff={FIRST}").vectors
    )
    learned_all(tmp_path, [FIRST, SECOND], warm=False)
    learned_all(tmp_path, [FIRST, SECOND, SECOND + 1], warm=False, reuse=True)
    assert [start for _, start in told[2:]] == [None, None, None]


def test_learning_all_counts_repeats_where_they_are_wanted(tmp_path: Path, told: Told) -> None:
    for repeats in (False, True):
        learned_all(tmp_path, [FIRST], repeats=repeats)
    assert [len(visits.items) for visits, _ in told] == [240, 320]


def test_a_training_starts_from_yesterday_and_keeps_its_own_cutoffs_alone(
    tmp_path: Path, told: Told
) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    offline = Path(settings.offline)
    (offline / "events_clean").mkdir(parents=True)
    pq.write_table(events(walks()), offline / "events_clean/part-0.parquet")
    assert step.learn_vectors(settings, [FIRST], OPTIONS) == {
        FIRST: offline / f"item_vectors/cutoff={FIRST}"
    }
    step.learn_vectors(settings, [SECOND], OPTIONS)
    assert [path.name for path in (offline / "item_vectors").iterdir()] == [f"cutoff={SECOND}"]
    step.learn_vectors(settings, [FIRST], OPTIONS)
    assert told[1][1] is not None
    assert [told[0][1], told[2][1]] == [None, None]  # SECOND knows what comes after FIRST


def test_yesterdays_damage_is_no_harm(tmp_path: Path, learned: Encoded) -> None:
    artefact.write(tmp_path / "cutoff=1", learned)
    newest = step._newest(tmp_path, 5)
    assert newest is not None
    assert newest.ids == learned.ids
    assert step._newest(tmp_path, 1) is None
    (tmp_path / "cutoff=1" / ENCODER_FILE).write_text("no archive")
    assert step._newest(tmp_path, 5) is None


def test_without_jax_or_a_folder_nothing_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate({"home": tmp_path})
    monkeypatch.setattr(step, "available", lambda: False)
    assert step.learn_vectors(settings, [FIRST]) == {}
    monkeypatch.setattr(learn, "available", lambda: False)
    with pytest.raises(UsageError, match="--no-embedding"):
        learn.learn(ring(), OPTIONS)
    monkeypatch.undo()
    far = settings.model_copy(update={"offline": "s3://bucket/offline"})
    assert step.learn_vectors(far, [FIRST]) == {}


def test_the_same_item_in_a_row_counts_once_unless_repeats_are_wanted() -> None:
    assert len(step._visits(history(CUTOFF), repeats=True).items) == 320
    once = step._visits(history(CUTOFF), repeats=False)
    assert len(once.items) == 240
    assert (np.diff(once.starts) == 3).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_a_start_that_is_damaged_is_learned_from_nothing(
    learned: Encoded, tmp_path: Path, content: bytes
) -> None:
    artefact.write(tmp_path / "cutoff=5", learned)
    (tmp_path / "cutoff=5" / ENCODER_FILE).write_bytes(content)
    with pytest.raises(UsageError, match="holds no encoder of this version"):
        read_weights(tmp_path / "cutoff=5")
    assert step._newest(tmp_path, 6) is None


def test_visits_of_one_click_alone_teach_nothing() -> None:
    visits = Visits(np.zeros(300, np.int32), np.arange(301, dtype=np.int64), np.zeros(300), ("a",))
    with pytest.raises(UsageError, match="a visit of two"):
        learn.learn(visits, OPTIONS)
