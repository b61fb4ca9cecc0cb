"""What the pipeline needs from the world, as protocols: it knows no client library.

`orchestrator.bootstrap` picks the real parts; tests bring fakes that pass the same suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from contracts.candidates import CandidateSet
from contracts.errors import ServiceError
from contracts.events import Topic
from contracts.release import Release
from contracts.rules import DEFAULT, Rules
from contracts.session import SessionState

Floats = npt.NDArray[np.float32]


class RankerUnavailable(ServiceError):
    """The ranking server cannot be reached or did not answer in time: worth trying again."""


class RankerRefused(ServiceError):
    """The ranking server answered, but does not have the version or cannot use it."""


class SessionReader(Protocol):
    async def session(self, session_id: str, moment: int) -> SessionState:
        """The stored state, not older than its maximum age at `moment` (milliseconds); empty for
        an unknown session. Any exception means that the store did not answer."""
        ...


@dataclass(frozen=True)
class ItemRows:
    """Features of n items. columns: by name, [n] each; nan (or 0 for ids) where there is no value
    that is young enough. versions: by view, int64 [n], the event time (milliseconds) of the row
    that was read; -1 where there is none, or one too old."""

    columns: Mapping[str, npt.NDArray[Any]]
    versions: Mapping[str, npt.NDArray[np.int64]]


class ItemReader(Protocol):
    async def items(self, items: Sequence[str], names: Sequence[str], moment: int) -> ItemRows:
        """The features of the items, in their order, as of `moment`. One round trip."""
        ...


class CandidateFinder(Protocol):
    """Candidates of this process or of another: `candidate_service.client.AsyncCandidates`."""

    @property
    def version(self) -> str:
        """Of the index that answers; "" while it is not known."""
        ...

    async def candidates(
        self, items: Sequence[str], count: int, exclude: Sequence[str], timeout: float
    ) -> CandidateSet:
        """See `contracts.candidates.Candidates.candidates`; within `timeout` seconds."""
        ...


@dataclass(frozen=True)
class LiveRelease:
    """What answers: a release, its candidates and, should they fail, what was popular; its rules."""

    release: Release
    finder: CandidateFinder
    popular: CandidateSet
    rules: Rules = DEFAULT


class Releases(Protocol):
    def current(self) -> LiveRelease | None:
        """The live release; None before the first one."""
        ...


class Ranker(Protocol):
    async def rank(self, rows: Floats, version: int, timeout: float) -> Floats:
        """Scores [n] of feature rows [n, features], higher is better, within `timeout` seconds.

        RankerUnavailable or RankerRefused when there are none."""
        ...

    async def prepare(self, version: int, columns: int) -> None:
        """Load a version and rank a row with it, so that it is warm; raises as `rank` does."""
        ...


class EventLog(Protocol):
    async def publish(self, topic: Topic, messages: Sequence[tuple[str, bytes]]) -> None:
        """Write (key, message) pairs and wait until every one is acknowledged.

        ServiceError when one is not in time: then some may be written and some not."""
        ...


class Message(Protocol):
    def to_json(self) -> bytes: ...


class Impressions(Protocol):
    def put(self, topic: Topic, key: str | None, message: Message) -> None:
        """Hand over a message; returns at once, never raises, may drop."""
        ...
