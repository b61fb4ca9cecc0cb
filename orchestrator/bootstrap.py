"""The one place that picks real parts: Redis through Feast's layout, Triton, Kafka, the index."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from contracts.release import Release
from contracts.settings import Settings
from orchestrator.impressions import QueuedMessages
from orchestrator.kafka_events import SECONDS, KafkaEvents
from orchestrator.metrics import Metrics
from orchestrator.parts import Parts, World, assemble
from orchestrator.ports import CandidateFinder

IMPRESSION_LINGER_MS = 250
"""Nobody waits for an impression, and one at a time they cost as much as half an answer."""

EVENT_DELIVERY_MS = int(SECONDS * 1000)


async def open_parts(settings: Settings, switched: Callable[[], object]) -> Parts:
    """The parts of an API process, with the active release loaded if there is one that is whole.

    What cannot be reached now is reached later: starting needs no other service.
    """
    metrics = Metrics()
    parts = assemble(settings, real_world(settings, metrics), metrics, switched)
    await parts.follower.check()
    await parts.warm_up()
    return parts


def real_world(settings: Settings, metrics: Metrics) -> World:
    from orchestrator.feast_store import FeastStore
    from orchestrator.kafka_log import KafkaLog
    from orchestrator.triton_ranker import TritonRanker

    store = FeastStore.open(settings)
    ranker = TritonRanker(settings.triton)
    find, close_candidates = candidate_finders(settings)
    # two producers: what waits for a Kafka that is down must not take the room of events. What
    # the sender was told to repeat must not be stored long after
    events = KafkaLog(settings, delivery_ms=EVENT_DELIVERY_MS)
    messages = KafkaLog(settings, linger_ms=IMPRESSION_LINGER_MS)
    impressions = QueuedMessages(messages, metrics)
    return World(
        sessions=store,
        items=store,
        ranker=ranker,
        find=find,
        event_log=KafkaEvents(events),
        impressions=impressions,
        close=(
            partial(asyncio.to_thread, impressions.close),
            partial(asyncio.to_thread, events.close),
            store.close,
            ranker.close,
            *close_candidates,
        ),
    )


def candidate_finders(
    settings: Settings,
) -> tuple[Callable[[Release], CandidateFinder], tuple[Callable[[], Awaitable[object]], ...]]:
    """What gives the candidates of a release, and how it is closed: an index in this process, or
    the service that the settings name, which follows the same releases."""
    from candidate_service.client import LocalCandidates, RemoteCandidates

    if settings.candidates:
        remote = RemoteCandidates(settings.candidates)
        return lambda release: remote, (remote.aclose,)  # noqa: ARG005

    def local(release: Release) -> CandidateFinder:
        from candidate_service.index import CandidateIndex

        return LocalCandidates(CandidateIndex.load(settings.indexes / release.index_version))

    return local, ()
