"""The parity gate: LightGBM, treelite and the served model say the same of real rows, or no release."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from contracts.deadline import Deadline
from contracts.errors import ReleaseError, ServiceError
from contracts.features import RANKED
from contracts.release import MODEL_NAME, SCORE_TOLERANCE
from contracts.settings import Settings
from training.export import CHECKPOINT

if TYPE_CHECKING:
    import lightgbm

ROWS = 512
CALL_SECONDS = 10.0
RESTART_SECONDS = 5.0
"""What a server that died is given to come back, before it counts as not up."""
LOAD_SECONDS = 60.0

Floats = npt.NDArray[np.float32]


def probe_rows(features: Floats, seed: int = 0, count: int = ROWS) -> Floats:
    """At most `count` real rows, and the same again with a tenth of their cells missing (nan)."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(features), size=min(count, len(features)), replace=False)
    rows = features[np.sort(chosen)]
    holed = np.where(rng.random(rows.shape) < 0.1, np.float32(np.nan), rows)
    return np.concatenate([rows, holed]).astype(np.float32)


def native_scores(booster: lightgbm.Booster, rows: Floats) -> npt.NDArray[np.float64]:
    return np.asarray(booster.predict(rows, num_threads=2), dtype=np.float64)


def treelite_scores(folder: Path, rows: Floats) -> npt.NDArray[np.float64]:
    """Of the checkpoint as it lies on disk."""
    import treelite

    model = treelite.Model.deserialize(str(folder / CHECKPOINT))
    return np.asarray(treelite.gtil.predict(model, rows, nthread=1), np.float64).reshape(len(rows))


def served_scores(settings: Settings, version: int, rows: Floats) -> npt.NDArray[np.float64]:
    """Of the version that Triton serves, after telling it to load what is in its repository.

    ServiceError when Triton is not up; ReleaseError when it refuses the model.
    """
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(settings.triton) as client:
        try:
            client.load_model(MODEL_NAME, client_timeout=LOAD_SECONDS)
            _wait_ready(client, version)
            return _infer(client, version, rows)
        except InferenceServerException as error:
            raise _explained(settings, version, error) from None


def _wait_ready(client: Any, version: int) -> None:
    end = time.monotonic() + LOAD_SECONDS
    while not client.is_model_ready(MODEL_NAME, str(version), client_timeout=CALL_SECONDS):
        if time.monotonic() > end:
            raise ReleaseError(
                f"Triton loaded {MODEL_NAME} but serves no version {version} after"
                f" {LOAD_SECONDS:.0f} s: see its log (./nextclick logs triton)"
            )
        time.sleep(0.1)


def _infer(client: Any, version: int, rows: Floats) -> npt.NDArray[np.float64]:
    import tritonclient.grpc as triton

    features = triton.InferInput("input__0", list(rows.shape), "FP32")
    features.set_data_from_numpy(np.ascontiguousarray(rows))
    answer = client.infer(
        MODEL_NAME, [features], model_version=str(version), client_timeout=CALL_SECONDS
    )
    return np.asarray(answer.as_numpy("output__0"), dtype=np.float64).reshape(len(rows))


def _explained(settings: Settings, version: int, error: Any) -> ReleaseError | ServiceError:
    if "StatusCode.UNAVAILABLE" in str(error.status()) and "load" not in str(error.message()):
        return ServiceError(not_up(settings))
    if "DEADLINE_EXCEEDED" in str(error.status()):
        return ServiceError(
            f"Triton at {settings.triton} did not answer in time: {error.message()}"
        )
    return ReleaseError(f"Triton refuses {MODEL_NAME} version {version}: {error.message()}")


def not_up(settings: Settings) -> str:
    return f"Triton does not answer at {settings.triton}: start the stack (./nextclick up)"


def require_triton(settings: Settings) -> None:
    """ServiceError unless Triton is up, or comes back within seconds: asked before the work."""
    deadline = Deadline(RESTART_SECONDS)
    while not _alive(settings):
        if deadline.expired():
            raise ServiceError(not_up(settings))
        time.sleep(0.2)


def _alive(settings: Settings) -> bool:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(settings.triton) as client:
        try:
            return bool(client.is_server_live(client_timeout=CALL_SECONDS))
        except InferenceServerException:
            return False


def gap(expected: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], engine: str) -> float:
    """Largest difference; ReleaseError when it is over `SCORE_TOLERANCE` or not a number."""
    largest = float(np.max(np.abs(expected - scores)))
    if not largest <= SCORE_TOLERANCE:  # nan is no agreement
        raise ReleaseError(
            f"{engine} and LightGBM differ by {largest:.3g} on {len(expected)} real rows, at most"
            f" {SCORE_TOLERANCE} is allowed: no release is made of this model"
        )
    return largest


def check(
    settings: Settings, booster: lightgbm.Booster, folder: Path, version: int, features: Floats
) -> float:
    """The gate: largest difference of any engine on real rows, or ReleaseError.

    features: float32 [n, len(RANKED)].
    """
    if booster.num_feature() != len(RANKED):
        raise ReleaseError(f"the model has {booster.num_feature()} columns, not {len(RANKED)}")
    rows = probe_rows(features)
    native = native_scores(booster, rows)
    offline = gap(native, treelite_scores(folder, rows), "treelite")
    return max(offline, gap(native, served_scores(settings, version, rows), "the served model"))
