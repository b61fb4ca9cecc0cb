"""The candidate index as a service of its own: `bentoml serve candidate_service.service:CandidateService`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import bentoml
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from candidate_service.client import MOST_CANDIDATES
from candidate_service.follow import LiveIndex
from contracts.fields import MAX_ID
from contracts.settings import Settings

Text = Annotated[str, Field(max_length=MAX_ID)]


class CandidateRequest(BaseModel):
    """The body of POST /candidates."""

    model_config = ConfigDict(extra="forbid")

    items: list[Text] = Field(
        max_length=100_000,
        description="What was visited, oldest first; unknown ones are passed over.",
    )
    count: int = Field(ge=1, le=MOST_CANDIDATES, strict=True, description="Candidates at most.")
    exclude: list[Text] = Field(
        default_factory=list, max_length=100_000, description="Items that must not come back."
    )


@bentoml.service(name="candidates", workers=1, traffic={"timeout": 10})
class CandidateService:
    """Answers from the index of the live release; 503 with the reason while there is none."""

    def __init__(self) -> None:
        self._live = LiveIndex(Settings.from_environment())
        self._live.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]  # BentoML has no types
    def close(self) -> None:
        self._live.stop()

    async def __is_ready__(self) -> bool:
        """What /readyz answers."""
        return self._live.current is not None

    @bentoml.api(route="/candidates")  # type: ignore[untyped-decorator]  # likewise
    def candidates(self, request: CandidateRequest, /, context: bentoml.Context) -> dict[str, Any]:
        """{version, items, scores, ranks, signals}: `contracts.candidates.CandidateSet`, null for nan."""
        index = self._live.current
        if index is None:
            context.response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
            return {"error": self._live.problem}
        found = index.candidates(request.items, request.count, request.exclude)
        return {
            "version": index.version,
            "items": list(found.items),
            "scores": _json(found.scores),
            "ranks": _json(found.ranks),
            "signals": _json(found.signals),
        }


def _json(values: npt.NDArray[np.float32]) -> list[list[float | None]]:
    """Rows of numbers, None where nan: JSON has no nan."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    rows: list[list[float | None]] = plain.tolist()
    return rows
