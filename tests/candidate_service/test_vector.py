"""The vector source: served by the encoder that was learned, exact where codes propose."""

from __future__ import annotations

import numpy as np
import pytest

from candidate_service.encoder import Encoder
from candidate_service.index import CandidateIndex, build_index
from contracts.candidates import SOURCES
from tests.candidate_service.shop import CUTOFF, events, visit
from training.encoder.artefact import write
from training.encoder.learn import Encoded
from training.encoder.model import initial_weights

IDS = tuple(f"n{number:03d}" for number in range(300))
KNOWN = IDS[:280]
"""The others have no vector."""
VECTOR = SOURCES.index("vector")


@pytest.fixture(scope="module")
def encoded() -> Encoded:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(len(KNOWN), 2, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True) * np.sqrt(2)
    weights = [initial_weights(16, rng) for _ in range(2)]
    stacked = {name: np.stack([each[name] for each in weights]) for name in weights[0]}
    return Encoded(KNOWN, vectors.reshape(len(KNOWN), 32), stacked)


@pytest.fixture(scope="module", params=[10_000, 100], ids=["exact", "codes"])
def index(
    encoded: Encoded, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> CandidateIndex:
    folder = tmp_path_factory.mktemp("vector")
    write(folder / "vectors", encoded)
    manifest = build_index(
        events(visit("v", IDS)), folder / "vectors", CUTOFF, folder / "i",
        parameters={"vector": {"exact_up_to": request.param}},
    )  # fmt: skip
    assert ("vector.codes" in manifest.files) == (request.param == 100)
    return CandidateIndex.load(folder / "i" / manifest.version)


VISITS = {
    "one click": IDS[:1],
    "some clicks": IDS[5:9],
    "more clicks than are looked at": IDS[40:90],
    "an item without a vector between": (IDS[3], IDS[290], IDS[4]),
    "the newest has no vector": (IDS[3], IDS[4], IDS[290]),
    "back and forth": (IDS[3], IDS[4], IDS[3], IDS[5], IDS[3], IDS[4]),  # every click counts
}


@pytest.mark.parametrize("visited", VISITS.values(), ids=VISITS)
def test_the_nearest_to_the_encoders_query(
    index: CandidateIndex, encoded: Encoded, visited: tuple[str, ...]
) -> None:
    rows = [KNOWN.index(item) for item in visited if item in KNOWN]
    encoder = Encoder(encoded.weights)
    query = encoder.query(encoded.vectors[rows[-encoder.length :]])
    cosines = encoded.vectors @ query
    best = np.argsort(-cosines)[:30]
    found, scores = index.propose("vector", visited, 30)
    assert list(found) == [KNOWN[row] for row in best]
    np.testing.assert_allclose(scores, cosines[best], atol=1e-5)


def test_every_candidate_has_its_cosine_but_those_without_a_vector(
    index: CandidateIndex, encoded: Encoded
) -> None:
    found = index.candidates(IDS[5:9], 300, ())
    known = np.array([item in KNOWN for item in found.items])
    assert known.sum() == len(KNOWN)
    query = Encoder(encoded.weights).query(encoded.vectors[5:9])
    rows = [KNOWN.index(item) for item in found.items if item in KNOWN]
    np.testing.assert_allclose(found.scores[known, VECTOR], encoded.vectors[rows] @ query, atol=1e-5)  # fmt: skip
    assert np.isnan(found.scores[~known, VECTOR]).all()


def test_what_is_left_out_makes_room_for_the_next(index: CandidateIndex, encoded: Encoded) -> None:
    query = Encoder(encoded.weights).query(encoded.vectors[[7]])
    best = [KNOWN[row] for row in np.argsort(-(encoded.vectors @ query))[:30]]
    assert best[0] == IDS[7]  # the query of one click is its vector
    assert list(index.propose("vector", IDS[7:8], 20, best[:10])[0]) == best[10:]


def test_a_visit_to_items_without_vectors_hears_nothing(index: CandidateIndex) -> None:
    assert index.propose("vector", IDS[290:292], 10)[0] == ()
