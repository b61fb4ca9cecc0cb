"""What the features of the view `moment` mean."""

from __future__ import annotations

from datetime import UTC, datetime


def moment_features(moment: int) -> dict[str, float]:
    """Hour of the day and day of the week (Monday 0), UTC, of a time in milliseconds since 1970."""
    at = datetime.fromtimestamp(moment / 1000, UTC)
    return {"hour": at.hour, "weekday": at.weekday()}
