"""What an encoder leaves for a cut-off: a folder with item vectors and the encoder's weights.

`vectors.parquet` is a part of `Offline.item_vectors`; `_encoder.npz` (which readers of Parquet
folders pass over) holds plain arrays, no pickle. Written whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from candidate_service.encoder import ENCODER_FILE, read_weights
from contracts.errors import UsageError
from training.encoder.learn import Encoded

VECTORS_FILE = "vectors.parquet"


def write(folder: Path, encoded: Encoded) -> None:
    """Replaces what was in the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        flat = pa.array(np.ascontiguousarray(encoded.vectors, np.float32).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, encoded.vectors.shape[1])
        table = pa.table(
            {
                "item_id": pa.array(encoded.ids, pa.string()),
                "vector": lists.cast(pa.list_(pa.float32())),
            }
        )
        pq.write_table(table, building / VECTORS_FILE)
        np.savez(building / ENCODER_FILE, **encoded.weights)  # type: ignore[arg-type]
        building.chmod(0o755)
        old = building.with_name(f"{building.name}.old")
        if folder.exists():
            folder.rename(old)
        building.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def read(folder: Path) -> Encoded:
    """Inverse of `write`; OSError, ValueError or UsageError for a folder that is none of ours."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / VECTORS_FILE)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    if not (weights := read_weights(folder)):
        raise UsageError(f"{folder} has no {ENCODER_FILE}")
    return Encoded(tuple(table["item_id"].to_pylist()), vectors, weights)
