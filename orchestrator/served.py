"""What was served: every answer's impression and, of a sample of sessions, the feature rows."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from contracts.events import Impression, ServedRows, Topic
from orchestrator.answer import Ranked
from orchestrator.ports import Impressions


class ServedLog:
    """Turns answers into messages. The sample is by hash, so that a session is in it as a whole."""

    def __init__(self, sink: Impressions, sample: float) -> None:
        self._sink, self._sample = sink, sample

    def log(self, session_id: str, moment: int, answer: dict[str, Any], ranked: Ranked) -> None:
        """`model_construct`: what we made ourselves needs no second check on the answer's path."""
        common = {
            "request_id": answer["request_id"],
            "session_id": session_id,
            "time": moment,
            "release": answer["release"],
            "items": list(ranked.candidates.items),
            "scores": ranked.scores.tolist(),
        }
        impression = Impression.model_construct(
            **common,
            sources=[item["sources"] for item in answer["items"]],
            degraded=answer["degraded"],
        )
        key = session_id or None
        self._sink.put(Topic.impressions, key, impression)
        if ranked.rows is not None and self._sampled(session_id or answer["request_id"]):
            rows = ServedRows.model_construct(
                **common, features=list(ranked.features), rows=ranked.rows.tolist()
            )
            self._sink.put(Topic.served, key, rows)

    def _sampled(self, session: str) -> bool:
        digest = blake2b(session.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._sample * 2**64
