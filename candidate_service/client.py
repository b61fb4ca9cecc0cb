"""Candidates behind one asynchronous interface, from this process or from a candidate service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import httpx
import numpy as np

from contracts.candidates import SIGNALS, SOURCES, Candidates, CandidateSet
from contracts.errors import ServiceError, shown
from contracts.fields import MAX_ID

MOST_CONNECTIONS = 64
MOST_CANDIDATES = 1000
"""Candidates at most that a candidate service gives."""


class AsyncCandidates(Protocol):
    """What the pipeline of a request asks."""

    @property
    def version(self) -> str:
        """Version of the index that answered last; "" while none has."""
        ...

    async def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str], timeout: float
    ) -> CandidateSet:
        """As `Candidates.candidates`, within `timeout` seconds.

        ServiceError says why there is no answer; it never raises for the contents of the texts.
        """
        ...


class LocalCandidates:
    """An index of this process. It takes about a millisecond, less than a change of threads."""

    def __init__(self, index: Candidates) -> None:
        self._index = index

    @property
    def version(self) -> str:
        return self._index.version

    async def candidates(
        self,
        items: Sequence[str],
        count: int,
        exclude: Sequence[str],
        timeout: float,
    ) -> CandidateSet:
        if timeout <= 0:
            raise ServiceError("no time is left for candidates")
        return self._index.candidates(items, count, exclude)


class RemoteCandidates:
    """A candidate service at `url`. `aclose()` ends its connections."""

    def __init__(self, url: str, http: httpx.AsyncClient | None = None) -> None:
        self._url = f"{url.rstrip('/')}/candidates"
        # trust_env: no proxy of the environment may come between two services
        self._http = http or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS), trust_env=False
        )
        self._version = ""

    @property
    def version(self) -> str:
        return self._version

    async def candidates(
        self,
        items: Sequence[str],
        count: int,
        exclude: Sequence[str],
        timeout: float,
    ) -> CandidateSet:
        if count <= 0:
            return CandidateSet.empty()
        body = {
            "items": _sendable(items),
            "count": min(count, MOST_CANDIDATES),
            "exclude": _sendable(exclude),
        }
        try:
            async with asyncio.timeout(timeout):
                response = await self._http.post(self._url, json=body, timeout=timeout)
        except (TimeoutError, httpx.TimeoutException):
            raise ServiceError(f"{self._url} did not answer within {timeout:.3f} s") from None
        except httpx.HTTPError as error:
            raise ServiceError(f"{self._url} is not to be reached: {error}") from None
        if response.status_code != httpx.codes.OK:
            raise ServiceError(
                f"{self._url} answered {response.status_code}: {shown(response.text)}"
            )
        return self._parsed(response)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _parsed(self, response: httpx.Response) -> CandidateSet:
        try:
            answer: dict[str, Any] = response.json()
            shape = (len(answer["items"]), len(SOURCES))
            found = CandidateSet(
                tuple(answer["items"]),
                np.array(answer["scores"], dtype=np.float32).reshape(shape),
                np.array(answer["ranks"], dtype=np.float32).reshape(shape),
                np.array(answer["signals"], dtype=np.float32).reshape(shape[0], len(SIGNALS)),
            )
            self._version = str(answer["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise ServiceError(
                f"{self._url} answered what is no set of candidates ({error}):"
                f" {shown(response.text)}; is it a candidate service of this version?"
            ) from None
        return found


def _sendable(items: Sequence[str]) -> list[str]:
    """The texts that can be an item's id: no index knows another, and JSON cannot carry some."""
    return [item for item in items if len(item) <= MAX_ID and _is_unicode(item)]


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
