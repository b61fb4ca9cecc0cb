"""The running endpoint as a shop's site calls it, and the catalogue beside it for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import httpx

from contracts.errors import ServiceError, UsageError
from contracts.settings import Settings

SECONDS = 10.0
Answer = dict[str, Any]


@cache
def _http() -> httpx.Client:
    """One client, its connections kept: making one costs more than most calls."""
    return httpx.Client(timeout=SECONDS, trust_env=False)


def post(settings: Settings, route: str, body: object) -> Any:
    """The JSON answer; ServiceError when the API does not answer, UsageError when it refuses."""
    try:
        response = _http().post(f"{settings.api}{route}", json=body)
    except httpx.HTTPError as error:
        raise ServiceError(
            f"no answer from {settings.api} ({type(error).__name__}): is the stack up? ./nextclick up"
        ) from None
    if response.status_code >= 500:
        raise ServiceError(f"{route} answered {response.status_code}: {response.text[:500]}")
    if response.status_code >= 400:
        raise UsageError(f"{route} answered {response.status_code}: {response.text[:500]}")
    return response.json()


def ask(
    settings: Settings, session: str | None, items: Sequence[str], exclude: Sequence[str], k: int
) -> Answer:
    """A recommendation for a session, or for items that were just viewed, oldest first."""
    body: dict[str, Any] = {"k": k, "exclude": list(exclude)}
    if session is not None:
        body["session_id"] = session
    if items:
        body["events"] = [{"type": "item_view", "item_id": item} for item in items]
    answer: Answer = post(settings, "/v1/recommend", body)
    return answer


def describe_items(settings: Settings, items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Brand, category and price of items, read from the online store; unknown ones are empty."""
    from feast_engine.connection import connect
    from feast_engine.reader import ReadRequest, SyncReader

    names = list(dict.fromkeys(items))
    with connect(settings, SECONDS) as client:
        request = ReadRequest("item_catalogue", names, ("brand", "category", "price"))
        columns = SyncReader(settings, client).read([request], None)[0].columns
    columns = {column: values.tolist() for column, values in columns.items()}
    return {
        name: {column: columns[column][row] for column in ("brand", "category", "price")}
        for row, name in enumerate(names)
    }
