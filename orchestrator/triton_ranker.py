"""The ranker in Triton, over gRPC."""

from __future__ import annotations

from typing import Any

import numpy as np

from contracts.release import MODEL_NAME
from orchestrator.ports import Floats, RankerRefused, RankerUnavailable

INPUT, OUTPUT = "input__0", "output__0"
_LOAD_SECONDS = 60.0
"""Loading may compile; it is off the answers' path."""
_CHECK_SECONDS = 5.0
_CHANNEL = (
    # a server that was restarted is found again within half a second, not after two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
    # a server that hangs is noticed although its socket is open
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class TritonRanker:
    """Implements `ports.Ranker`. Made inside the event loop that uses it."""

    def __init__(self, address: str) -> None:
        from tritonclient.grpc.aio import InferenceServerClient

        self._address = address
        self._client: Any = InferenceServerClient(address, channel_args=list(_CHANNEL))

    async def rank(self, rows: Floats, version: int, timeout: float) -> Floats:
        from tritonclient.grpc import InferInput

        given = InferInput(INPUT, list(rows.shape), "FP32")
        given.set_data_from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        call = self._client.infer(
            MODEL_NAME, [given], model_version=str(version), client_timeout=max(timeout, 0.001)
        )
        result = await self._asked(call, f"rank {len(rows)} rows with version {version}")
        scores: Floats | None = result.as_numpy(OUTPUT)
        if scores is None or scores.size != len(rows):
            got = "no scores" if scores is None else f"{scores.size} scores"
            raise RankerRefused(f"Triton at {self._address} gave {got} for {len(rows)} rows")
        return scores.reshape(-1)

    async def prepare(self, version: int, columns: int) -> None:
        if not await self._ready(version):
            call = self._client.load_model(MODEL_NAME, client_timeout=_LOAD_SECONDS)
            await self._asked(call, f"load {MODEL_NAME}")
            if not await self._ready(version):
                raise RankerRefused(
                    f"Triton at {self._address} has no {MODEL_NAME} version {version} after"
                    " loading: see that the version's folder is in its model repository"
                )
        await self.rank(np.zeros((1, columns), dtype=np.float32), version, _CHECK_SECONDS)

    async def _ready(self, version: int) -> bool:
        call = self._client.is_model_ready(
            MODEL_NAME, model_version=str(version), client_timeout=_CHECK_SECONDS
        )
        return bool(await self._asked(call, f"say whether version {version} is ready"))

    async def _asked(self, call: Any, what: str) -> Any:
        """Triton's answer; its errors as ours."""
        from tritonclient.utils import InferenceServerException

        try:
            return await call
        except InferenceServerException as error:
            text = f"Triton at {self._address} did not {what}: {error.message()}"
            raise _kind(error)(text[:1000]) from None

    async def close(self) -> None:
        await self._client.close()


_TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


def _kind(error: Any) -> type[RankerUnavailable] | type[RankerRefused]:
    """UNAVAILABLE also stands for a model that is not ready, when Triton itself said it."""
    status = str(error.status() or "")
    from_server = "Request for unknown model" in str(error.message())
    transient = any(name in status for name in _TRANSIENT) and not from_server
    return RankerUnavailable if transient else RankerRefused
