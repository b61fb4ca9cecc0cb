"""What was served: every answer's impression and, of a sample of sessions, the feature rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.events import Impression, ServedRows, Topic
from contracts.tables import STORED_ITEM_VIEWS
from orchestrator.answer import Ranked
from orchestrator.ports import Impressions
from orchestrator.request import RecommendRequest


@dataclass
class Basis:
    """What an answer was made from: enough to make it anew from the lake and the offline tables.

    exclude: what the index was told to leave out; effects: what business rules did to the list
    (`contracts.rules.Effect`); session_version: of the stored state (`contracts.session.SessionState.version`); index: the
    candidate index that proposed; visited: items of the visit; rows: row of each item that was
    read; versions: by view, the event time of each such row (`ports.ItemRows`).
    """

    exclude: list[str] = field(default_factory=list)
    effects: list[dict[str, Any]] = field(default_factory=list)
    session_version: int = -1
    index: str = ""
    visited: list[str] = field(default_factory=list)
    rows: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def versions_of(self, items: Iterable[str]) -> dict[str, list[int]]:
        """By stored item view the versions of `items`, in their order."""
        places = [self.rows[item] for item in items] if self.versions else []
        return {
            view: self.versions[view][places].tolist() if view in self.versions else []
            for view in STORED_ITEM_VIEWS
        }


class ServedLog:
    """Turns answers into messages. The sample is by hash, so that a session is in it as a whole."""

    def __init__(self, sink: Impressions, sample: float, candidates: int) -> None:
        self._sink, self._sample, self._candidates = sink, sample, candidates

    def log(
        self,
        request: RecommendRequest,
        moment: int,
        answer: dict[str, Any],
        ranked: Ranked,
        basis: Basis,
    ) -> None:
        """`model_construct`: what we made ourselves needs no second check on the answer's path."""
        common = {
            "request_id": answer["request_id"],
            "session_id": request.session_id,
            "time": moment,
            "release": answer["release"],
            "items": list(ranked.candidates.items),
            "scores": ranked.scores.tolist(),
            "degraded": answer["degraded"],
        }
        impression = Impression.model_construct(
            **common, sources=[item["sources"] for item in answer["items"]]
        )
        key = request.session_id or None
        self._sink.put(Topic.impressions, key, impression)
        if ranked.rows is not None and self._sampled(request.session_id or answer["request_id"]):
            rows = ServedRows.model_construct(
                **common,
                **self._asked(request, ranked, basis),
                features=list(ranked.features),
                rows=ranked.rows.tolist(),
            )
            self._sink.put(Topic.served, key, rows)

    def _asked(self, request: RecommendRequest, ranked: Ranked, basis: Basis) -> dict[str, Any]:
        return {
            "asked_at": request.asked_at,
            "index": basis.index,
            "session_version": basis.session_version,
            "events": [json.loads(event.to_json()) for event in request.events],
            "context": dict(request.context),
            "exclude": basis.exclude,
            "rules": basis.effects,
            "candidates": self._candidates,
            "visited": basis.visited,
            "visited_versions": basis.versions_of(basis.visited),
            "versions": basis.versions_of(ranked.candidates.items),
        }

    def _sampled(self, session: str) -> bool:
        digest = blake2b(session.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._sample * 2**64
