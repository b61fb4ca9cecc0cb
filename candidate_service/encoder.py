"""A visit's query among item vectors, in numpy: the serving half of `training.encoder`.

The same computation as `training.encoder.model.queries`, for the newest click alone.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.errors import UsageError

Floats = npt.NDArray[np.float32]
WEIGHTS = (
    "attend_query", "attend_key", "attend_out", "attend_bias", "pool_query", "pool_key", "pool_item",
    "pool_bias",
)  # fmt: skip
"""Names of the encoder's arrays."""


ENCODER_FILE = "_encoder.npz"
"""Their file beside the vectors; readers of Parquet folders pass over its name."""


def read_weights(source: object) -> dict[str, Floats]:
    """The encoder's arrays in a folder of item vectors; {} where there are none. UsageError for a
    file that is not an encoder's."""
    if not isinstance(source, str | Path) or (content := _bytes(str(source))) is None:
        return {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name].astype(np.float32) for name in WEIGHTS}
    except _DAMAGED as error:
        raise UsageError(
            f"{source}/{ENCODER_FILE} holds no encoder of this version ({error}): learn it again"
            " (./nextclick train)"
        ) from None


# what numpy says of a file that is cut, empty, of another kind, or of other arrays
_DAMAGED = (
    ValueError, KeyError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile,
)  # fmt: skip


def _bytes(folder: str) -> bytes | None:
    """The file's content; None where there is none."""
    from pyarrow import fs

    if "://" in folder:
        store, path = fs.FileSystem.from_uri(f"{folder}/{ENCODER_FILE}")
    else:
        store, path = fs.LocalFileSystem(), f"{folder}/{ENCODER_FILE}"
    if store.get_file_info(path).type != fs.FileType.File:
        return None
    with store.open_input_file(path) as file:
        return bytes(file.read())


class Encoder:
    """weights: by name, as `WEIGHTS`, each with the members of the ensemble as its first axis.
    `length`: newest clicks that are looked at.

    A vector holds one block of every member's, side by side: an inner product is the mean of the
    members' cosines.
    """

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._weights = {name: np.asarray(weights[name], np.float32) for name in WEIGHTS}
        self.members, self.length = self._weights["attend_bias"].shape
        distance = np.arange(self.length)[:, None] - np.arange(self.length)[None, :]
        causal = np.where(distance >= 0, 0, -1e9).astype(np.float32)
        self._bias = self._weights["attend_bias"][:, np.clip(distance, 0, None)] + causal
        self._scale = np.float32(1 / np.sqrt(self._weights["attend_query"].shape[-1]))

    def query(self, clicks: Floats) -> Floats:
        """The unit query of a visit. clicks: unit vectors of its newest clicks [n, dimensions],
        oldest first, 1 to `length` of them."""
        w, count, members = self._weights, len(clicks), self.members
        x = clicks.reshape(count, members, -1).transpose(1, 0, 2) * np.float32(np.sqrt(members))
        keys = (x @ w["attend_key"]).transpose(0, 2, 1)
        alike = (x @ w["attend_query"]) @ keys * self._scale
        h = x + (_softmax(alike + self._bias[:, :count, :count]) @ x) @ w["attend_out"]
        asked = h[:, -1:] @ w["pool_query"]
        pooling = (h @ w["pool_key"]) @ asked.transpose(0, 2, 1) * self._scale
        pooling = pooling[:, :, 0] + w["pool_bias"][:, count - 1 :: -1][:, :count]
        pooling += (h @ w["pool_item"][:, :, None])[:, :, 0]
        query = (_softmax(pooling)[:, None, :] @ x)[:, 0]
        norms = np.maximum(np.linalg.norm(query, axis=1, keepdims=True), 1e-12)
        unit: Floats = (query / norms).reshape(-1) / np.float32(np.sqrt(members))
        return unit


def _softmax(x: npt.NDArray[np.floating]) -> Floats:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)
