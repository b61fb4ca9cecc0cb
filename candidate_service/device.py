"""Where a FAISS index is searched: on a GPU when FAISS and the machine have one, else here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

Search = Callable[
    [npt.NDArray[np.float32], int], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
]
"""(query [dimensions], count) -> rows of the vectors found and their inner products, best first."""

GPU_MOST = 2048
"""Results at most that FAISS gives on a GPU."""


def on_best_device(index: Any) -> Search:
    """A search over the FAISS index, moved to the GPU if there is one; the log says which and why."""
    import faiss

    reason = why_no_gpu(faiss)
    if reason:
        log.info("vectors are searched on the CPU: %s", reason)
        return _searcher(index, index.ntotal)
    resources = faiss.StandardGpuResources()
    moved = faiss.index_cpu_to_gpu(resources, 0, index)
    log.info("vectors are searched on the GPU: FAISS finds %d", faiss.get_num_gpus())
    search, lock = _searcher(moved, min(index.ntotal, GPU_MOST)), Lock()

    def one_at_a_time(
        query: npt.NDArray[np.float32], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        # GPU resources serve one thread at a time, and must live as long as the index
        with lock:
            assert resources is not None  # noqa: S101  # keeps them alive
            return search(query, count)

    return one_at_a_time


def why_no_gpu(faiss: Any) -> str:
    """Why this FAISS cannot use a GPU; "" when it can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "this FAISS has no GPU support (the extra `gpu` has)"
    if faiss.get_num_gpus() == 0:
        return "FAISS finds no GPU"
    return ""


def _searcher(index: Any, most: int) -> Search:
    import faiss

    def search(
        query: npt.NDArray[np.float32], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        # one thread for one query: starting a team took 6 to 20 ms, the search .3; OpenMP keeps
        # this number by thread, and FAISS brings an OpenMP of its own, so no one else is affected
        faiss.omp_set_num_threads(1)
        products, rows = index.search(query[None, :], max(1, min(count, most)))
        found = rows[0] >= 0  # fewer where there are not as many
        return rows[0][found], products[0][found]

    return search
