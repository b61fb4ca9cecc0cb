"""Nearest item vectors, by FAISS.

Vectors and query: `training.encoder`. Search on a GPU: Johnson, Douze and Jegou, "Billion-scale
similarity search with GPUs", IEEE Transactions on Big Data 2021; on a CPU: André, Kermarrec and
Le Scouarnec, "Cache locality is not enough: High-Performance Nearest Neighbor Search with Product
Quantization Fast Scan", VLDB 2015.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

from candidate_service.board import Board, Floats, Ints
from candidate_service.device import Search, on_best_device, why_no_gpu
from candidate_service.encoder import Encoder
from candidate_service.history import History
from candidate_service.source import (
    Answer,
    Arrays,
    Found,
    Parameters,
    Silent,
    Source,
    Visit,
    best,
)


class Vector(Source):
    """score = cosine of the candidate and the visit's query: what the encoder makes of its clicks, or
    where the vectors came without one the decayed sum of its items' unit vectors.

    Exact on a GPU and up to `exact_up_to` items. Beyond that a scan of 4-bit codes proposes
    `rescored` times as many as are asked for, of which the exact cosines choose.
    """

    name = "vector"
    defaults: ClassVar[Parameters] = {
        "weight": 4.0,
        "quota": 0.0,
        "step_weight": 0.6,
        "exact_up_to": 5_000,
        "rescored": 4,
    }

    @classmethod
    def build(cls, history: History, parameters: Parameters) -> dict[str, npt.NDArray[Any]]:
        vectors = history.vectors
        if vectors is None:
            return {}
        arrays: dict[str, npt.NDArray[Any]] = {"items": vectors.items, "vectors": vectors.values}
        arrays |= {f"encoder.{name}": values for name, values in vectors.encoder.items()}
        if len(vectors.items) > parameters["exact_up_to"]:
            arrays["codes"] = _codes(vectors.values)
        return arrays

    def __init__(self, arrays: Arrays, parameters: Parameters, items: int) -> None:
        super().__init__(arrays, parameters, items)
        self._search: Search | None = None
        if arrays:
            self._vectors, self._numbers = arrays["vectors"], arrays["items"]
            self._row = np.full(items, -1, dtype=np.int32)
            self._row[self._numbers] = np.arange(len(self._numbers), dtype=np.int32)
            self._search = on_best_device(_faiss_index(arrays))
            self._more = int(parameters["rescored"]) if "codes" in arrays else 1
            self._encoder = _encoder(arrays)

    def ask(self, visit: Visit, board: Board) -> Answer:
        if self._search is None or not len(visit):
            return Silent()
        query = self._decayed(visit) if self._encoder is None else self._encoded(visit)
        norm = np.linalg.norm(query)
        if not norm > 0:
            return Silent()
        return _Nearest(self, self._search, query / norm)

    def _encoded(self, visit: Visit) -> Floats:
        rows = self._row[visit.sequence]
        encoder = self._encoder
        clicks = self._vectors[rows[rows >= 0]]
        if encoder is None or not len(clicks):
            return np.zeros(1, dtype=np.float32)
        return encoder.query(clicks[-encoder.length :])

    def _decayed(self, visit: Visit) -> Floats:
        rows = self._row[visit.items]
        weight = self.parameters["step_weight"] ** visit.steps[rows >= 0]
        query: Floats = weight.astype(np.float32) @ self._vectors[rows[rows >= 0]]
        return query

    def cosines(self, query: Floats, items: Ints) -> Floats:
        """Cosine of a unit query to each item; nan for an item without a vector."""
        cosines: Floats = _cosines(self._vectors, self._row[items], query)
        return cosines

    def nearest(self, search: Search, query: Floats, count: int) -> Found:
        """The nearest items of a unit query, and their cosines."""
        rows, _ = search(query, count * self._more)
        items = np.sort(self._numbers[rows])
        return best(items, self.cosines(query, items), count)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _cosines(vectors, rows, query):  # type: ignore[no-untyped-def]
    """Not by BLAS, which rounds a row differently by the rows beside it: scores would not keep the
    order of the ranks. Rows are not gathered first: that took longer than the products."""
    cosines = np.empty(len(rows), np.float32)
    for place in range(len(rows)):
        row = rows[place]
        total = np.float32(0)
        if row >= 0:
            for column in range(len(query)):
                total += vectors[row, column] * query[column]
        cosines[place] = total if row >= 0 else np.nan
    return cosines


class _Nearest(Answer):
    def __init__(self, source: Vector, search: Search, query: Floats) -> None:
        self._source, self._search, self._query = source, search, query

    def top(self, count: int) -> Found:
        return self._source.nearest(self._search, self._query, count)

    def of(self, items: Ints) -> Floats:
        return self._source.cosines(self._query, items)


def _encoder(arrays: Arrays) -> Encoder | None:
    prefix = "encoder."
    weights = {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
    return Encoder(weights) if weights else None


def _codes(vectors: Floats) -> npt.NDArray[np.uint8]:
    """A FAISS index of 4-bit codes, one for every two dimensions, as bytes."""
    import faiss

    dimensions = vectors.shape[1]
    kind = f"PQ{max(1, dimensions // 2)}x4fs" if dimensions % 2 == 0 else "Flat"
    index = faiss.index_factory(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    serialised: npt.NDArray[np.uint8] = faiss.serialize_index(index)
    return serialised


def _faiss_index(arrays: Arrays) -> Any:
    import faiss

    # codes are for CPUs; a GPU searches all vectors faster than a CPU the codes
    if "codes" in arrays and why_no_gpu(faiss):
        return faiss.deserialize_index(arrays["codes"])
    exact = faiss.IndexFlatIP(arrays["vectors"].shape[1])
    exact.add(np.ascontiguousarray(arrays["vectors"]))
    return exact
