"""What the last proof found (`./nextclick parity`), for those who show it: status, metrics."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.settings import Settings


class ParityResult(BaseModel):
    """The head of the report; the report holds more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    finished_ms: int
    verdict: str  # "equal", "differing" or "nothing to compare"
    rows: int
    cells: int
    differing: int
    scores: int
    scores_differing: int
    answers_not_compared: dict[str, int]


def parity_path(settings: Settings) -> Path:
    """Where the last report lies: replaced as a whole by each run."""
    return settings.home / "parity" / "report.json"


def last_parity(settings: Settings) -> ParityResult | None:
    """None where the proof was never run, or its report cannot be read."""
    try:
        return ParityResult.model_validate_json(parity_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None
