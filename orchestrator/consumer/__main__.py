"""`python -m orchestrator.consumer`: the event consumer as a process, until SIGTERM or SIGINT."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from contracts.errors import NextclickError
from contracts.settings import Settings
from orchestrator.consumer.health import Health, Metrics, serve
from orchestrator.consumer.kafka_source import KafkaSource
from orchestrator.consumer.lake import ParquetLake
from orchestrator.consumer.loop import Consumer
from orchestrator.consumer.online import FeastStates
from orchestrator.kafka_log import KafkaLog


def main() -> int:
    try:
        settings = Settings.from_environment()
        _log_to_stderr(settings.log_level)
        run(settings)
    except NextclickError as error:
        print(f"consumer: {error}", file=sys.stderr)  # noqa: T201  # the last word of a program
        return error.exit_code
    return 0


def run(settings: Settings) -> None:
    health, metrics = Health(), Metrics()
    log = KafkaLog(settings)
    background = ThreadPoolExecutor(2, thread_name_prefix="store")
    consumer = Consumer(
        KafkaSource(settings),
        FeastStates(settings),
        ParquetLake(settings.lake),
        log,
        settings.consumer_batch,
        health=health,
        metrics=metrics,
        background=background,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: consumer.stop.set())
    page = serve(settings.host, settings.consumer_port, health, metrics)
    # full collections over what never goes away would stop the loop for 100 ms now and then
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        consumer.run()
    finally:
        background.shutdown()
        log.close()
        page.shutdown()


def _log_to_stderr(level: str) -> None:
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level.upper(), format=form, stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
