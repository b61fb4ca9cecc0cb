"""Events of a file into the running stack: Kafka, then online store and lake."""

from __future__ import annotations

from pathlib import Path

from contracts.settings import Settings
from local_stack.cli.progress import StepProgress
from local_stack.data.importer import ImportSummary, check_file, import_events
from local_stack.lag import wait_until_consumed

PATIENCE_SECONDS = 30.0
"""For room among the messages in flight."""
LINGER_MS = 50
"""Larger batches: nobody waits for a single message."""


def ingest(
    settings: Settings,
    file: Path,
    progress: StepProgress,
    mapping: dict[str, str] | None = None,
    shift_to_now: bool = False,
    wait: bool = True,
) -> ImportSummary:
    """One or two steps of `progress`: sending, and waiting for the consumer."""
    from orchestrator.kafka_log import KafkaLog
    from orchestrator.kafka_topics import ensure_topics

    check_file(file)
    with progress.step(f"events of {file.name} into Kafka"):
        ensure_topics(settings)
        log = KafkaLog(settings, patience=PATIENCE_SECONDS, linger_ms=LINGER_MS)
        try:
            summary = import_events(
                file, settings, log, mapping=mapping, shift_to_now=shift_to_now, report=progress
            )
        finally:
            log.close()
        progress.note(summary.text())
    if wait:
        with progress.step("consumer: online store and event lake"):
            wait_until_consumed(settings, progress)
    return summary
