"""Sessions and item features from Feast's online store: both reading ports over one reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.features import BY_NAME
from contracts.session import SessionEvent, SessionState
from contracts.settings import Settings
from feast_engine.connection import AsyncClient, connect_async
from feast_engine.reader import OnlineReader, ReadRequest
from orchestrator.ports import ItemRows

_STATE = tuple(f"event_{name}" for name in SessionEvent._fields)
"""From these lists every other feature of a session and its context follows."""


class FeastStore:
    """Implements `ports.SessionReader` and `ports.ItemReader`, each in one round trip."""

    def __init__(self, settings: Settings, client: AsyncClient) -> None:
        self._client, self._reader = client, OnlineReader(settings, client)

    @classmethod
    def open(cls, settings: Settings) -> FeastStore:
        """A store that connects when it is first asked."""
        return cls(settings, connect_async(settings))

    async def session(self, session_id: str, moment: int) -> SessionState:
        [rows] = await self._reader.read([ReadRequest("session", [session_id], _STATE)], moment)
        return SessionState.from_columns({name: rows.columns[name][0] for name in _STATE})

    async def items(self, items: Sequence[str], names: Sequence[str], moment: int) -> ItemRows:
        wanted: dict[str, list[str]] = {}
        for name in names:
            wanted.setdefault(BY_NAME[name].view, []).append(name)
        requests = [ReadRequest(view, items, features) for view, features in wanted.items()]
        columns: dict[str, npt.NDArray[Any]] = {}
        versions: dict[str, npt.NDArray[np.int64]] = {}
        for view, rows in zip(wanted, await self._reader.read(requests, moment), strict=True):
            columns |= rows.columns
            versions[view] = np.where(rows.present, rows.event_times_ms, -1)
        return ItemRows(columns, versions)

    async def close(self) -> None:
        await self._client.aclose()
