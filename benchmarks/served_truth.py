"""`truth`: is every number that was served the one that the offline path computes?

Real visits happen again on the running stack, with late and repeated events, while the consumer is
killed and the release is switched, until enough feature values were served. Then the proof
(`./nextclick parity`) computes all of them again from the lake and compares them bit by bit. The
visits are those of the shop that the stack was filled with (`./nextclick demo --events FILE`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import NAMES, result
from benchmarks.visitors import Traffic, past_visits, run
from contracts.errors import ServiceError, UsageError
from contracts.events import PriceChange, Topic
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from contracts.tables import Lake, Offline

ALLOWED_LAG_MS = 10_000
"""A consumer that was killed is back within this time, on a machine that is busy with all else."""
REPRICED = 30
SENT_SECONDS = 2.0
"""The rows of answers are sent together, some moments after them."""
LAKE_SECONDS = 90.0
"""So long at most until a message is in the lake, also after a kill."""


@click.command("truth", help=__doc__, short_help=NAMES["truth"])
@click.option("--cells", default=1_000_000, show_default=True, type=click.IntRange(1), help="Feature values to serve.")  # fmt: skip
@click.option("--kills", default=3, show_default=True, type=click.IntRange(0, 100), help="Times that the consumer is killed (SIGKILL).")  # fmt: skip
@click.option("--switch", type=click.Choice(["train", "index", "none"]), default="index", show_default=True, help="In the middle: a newly trained release, one with a new candidate index, or none; with new item tables and prices.")  # fmt: skip
@click.option("--visitors", default=12, show_default=True, type=click.IntRange(1, 1000), help="Visits at a time.")  # fmt: skip
@click.option("--pause", default=0.3, show_default=True, type=click.FloatRange(0.001, 60), help="Mean seconds between a visitor's events.")  # fmt: skip
@click.option("--k", default=20, show_default=True, type=click.IntRange(1, 1000), help="Items of an answer.")  # fmt: skip
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0))
@click.option("--lag-ms", default=ALLOWED_LAG_MS, show_default=True, type=click.IntRange(0), help="What became known so shortly before a question may have been missed by it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def COMMAND(  # noqa: N802  # the name that every benchmark has
    cells: int, kills: int, switch: str, visitors: int, pause: float, k: int, seed: int,
    lag_ms: int, as_json: bool,
) -> None:  # fmt: skip
    settings = Settings.from_environment()
    columns = len(_live(settings).features)
    traffic = Traffic(cells, columns, visitors, pause, k, seed)
    document = measure(settings, traffic, kills, switch, lag_ms)
    path = result.save("truth", document)
    document = {**document, "raw": str(path)}
    print(json.dumps(document) if as_json else text(document))
    sys.exit(document["exit_code"])


def measure(
    settings: Settings,
    traffic: Traffic,
    kills: int,
    switch: str,
    lag_ms: int,
    keep: Path | None = None,
) -> dict[str, Any]:
    """The result document. ServiceError without a stack, UsageError without visits.

    keep: a folder for the tables that the proof makes."""
    from local_stack.cli.progress import StepProgress
    from local_stack.lag import wait_until_consumed
    from local_stack.proof import STEPS, Proof, prove
    from local_stack.stack import status
    from monitoring.served import Selection

    visits = past_visits(settings, traffic.seed)
    where = result.conditions(settings, status(settings))
    began, clock = _ms(), time.monotonic()
    disturbance = Disturbance(settings, kills, switch)
    seen = asyncio.run(run(settings, visits, traffic, disturbance))
    disturbance.end()
    served_seconds = time.monotonic() - clock
    with StepProgress(1 + STEPS) as progress:
        with progress.step("consumer: online store and event lake"):
            time.sleep(SENT_SECONDS)
            wait_until_consumed(settings, progress)
        proof = Proof(Selection(since=began), lag_ms, keep=keep)
        report = prove(settings, proof, progress)
    found = report.as_dict()
    return {
        "benchmark": "truth",
        "started": datetime.fromtimestamp(began / 1000, UTC).isoformat(timespec="seconds"),
        "conditions": where,
        "load": {**asdict(traffic), "lag_ms": lag_ms, "switch": switch},
        "sent": seen.as_dict(),
        "kills": disturbance.kills,
        "switches": disturbance.switches,
        "seconds": {"served": round(served_seconds, 1), **_rounded(progress.seconds)},
        "answers_lost": max(0, seen.answers - seen.unranked - report.answers),
        "exit_code": report.exit_code,
        **found,
    }


@dataclass
class Disturbance:
    """Kills the consumer at even shares of the run, and in its middle switches the release."""

    settings: Settings
    planned: int
    switch: str
    kills: int = 0
    switches: int = 0
    _worker: threading.Thread | None = None
    _failure: list[BaseException] = field(default_factory=list)

    def __call__(self, share: float) -> bool:
        """Does what is due; whether there is more to do. share: of the run that is done."""
        due = (self.kills + 1) / (self.planned + 1)
        if self.kills < self.planned and share >= due:
            self._kill()
        if self.switch != "none" and self._worker is None and share >= 0.4:
            self._worker = threading.Thread(target=self._switch_it)
            self._worker.start()
        switching = self._worker is not None and self._worker.is_alive()
        return switching or self.kills < self.planned

    def end(self) -> None:
        """Wait for the switch; raise what it failed with."""
        if self._worker is not None:
            self._worker.join()
        if self._failure:
            raise self._failure[0]

    def _kill(self) -> None:
        from local_stack.stack import status

        services = {each["name"]: each for each in status(self.settings)["services"]}
        pid = services["consumer"]["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            _say(f"consumer (process {pid}) killed")

    def _switch_it(self) -> None:
        try:
            _SWITCHES[self.switch](self.settings)
            self.switches += 1
        except BaseException as error:  # noqa: BLE001  told by `end`, in the main thread
            self._failure.append(error)


def _train_anew(settings: Settings) -> None:
    from local_stack.cli.progress import StepProgress
    from local_stack.rebuild import STEPS, rebuild
    from training.train import Options

    _change_prices(settings)
    with StepProgress(STEPS) as progress:
        rebuild(settings, progress, Options(queries=12_000), activate_it=True)


def _index_anew(settings: Settings) -> None:
    """New prices, new item tables, materialised; a release with an index of all events so far."""
    from candidate_service.index import build_index
    from feast_engine.store import materialize
    from local_stack.proof import JOBS
    from local_stack.rebuild import activate, run_spark_jobs

    _change_prices(settings)
    now = datetime.now(UTC)
    run_spark_jobs(settings, now, lambda *_: None, JOBS)
    materialize(settings, now)
    _say("new item tables are materialised")
    events = f"{settings.offline}/{Offline.events_clean}"
    cutoff = int(now.timestamp() * 1000)
    index = build_index(events, None, cutoff, settings.indexes)
    live = _live(settings)
    version = f"r{now:%Y%m%d-%H%M%S}-v{live.ranker_version}"
    changed = {"version": version, "created": now, "index_version": index.version}
    store = ReleaseStore(settings.releases)
    rules = (store.path(live.version) / "rules.json").read_bytes()
    folder = store.path(version)
    folder.mkdir(parents=True)
    (folder / "rules.json").write_bytes(rules)
    store.add(live.model_copy(update=changed))
    activate(settings, version, lambda _: None)
    _say(f"release {version} answers")


_SWITCHES: dict[str, Callable[[Settings], None]] = {"train": _train_anew, "index": _index_anew}


def _change_prices(settings: Settings) -> None:
    """Some items cost a tenth more from now on, as the shop's own messages say."""
    from local_stack.client import describe_items
    from orchestrator.kafka_log import KafkaLog

    visits = past_visits(settings, 1, 200)
    shown = {event["item_id"] for visit in visits for event in visit if "item_id" in event}
    known = describe_items(settings, sorted(shown)[: 10 * REPRICED])
    prices = {item: row["price"] for item, row in known.items() if row["price"] > 0}
    changed = dict(list(prices.items())[:REPRICED])
    began, log = _ms(), KafkaLog(settings)
    try:
        for item, price in changed.items():
            change = PriceChange(item_id=item, time=_ms(), price=round(price * 1.1, 2))
            log.send(Topic.prices, item, change.to_json())
        log.flush(30)
    finally:
        log.close()
    _await_prices(settings, began, len(changed))
    _say(f"{len(changed)} prices changed")


def _await_prices(settings: Settings, since: int, count: int) -> None:
    """Until they are in the lake. The traffic goes on, so that there is always some lag."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from monitoring.lake import lake_dataset

    schema = pa.schema([("time", pa.int64())])
    end = time.monotonic() + LAKE_SECONDS
    while time.monotonic() < end:
        lake = lake_dataset(settings, Lake.prices, schema)
        if lake.count_rows(filter=pc.field("time") >= since) >= count:
            return
        time.sleep(1)
    raise ServiceError(
        f"{count} price changes are not in the lake after {LAKE_SECONDS:.0f} s: see"
        " ./nextclick logs consumer"
    )


def _live(settings: Settings) -> Release:
    live = ReleaseStore(settings.releases).active()
    if live is None:
        raise UsageError("no release is live: fill the stack first (./nextclick demo)")
    return live


def text(document: dict[str, Any]) -> str:
    sent, answers = document["sent"], document["answers"]
    return "\n".join(
        [
            f"{document['verdict']}: {document['differing']:,} of {document['cells']:,} cells differ,"
            f" {document['scores_differing']:,} of {document['scores']:,} scores;"
            f" {answers:,} answers, {document['answers_lost']:,} not logged",
            f"sent {sent['events']:,} events, {sent['late']:,} late, {sent['repeated']:,} twice;"
            f" consumer killed {document['kills']} times, release switched {document['switches']} times",
            f"degraded: {dict(sent['degraded'])}; reasons: {document['reasons'] or 'none'}",
            f"a session lagged behind Kafka in {document['answers_behind']:,} answers, at most"
            f" {document['most_behind_ms']:,} ms",
            f"raw: {document['raw']}",
        ]
    )


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def _ms() -> int:
    return time.time_ns() // 1_000_000


def _say(said: str) -> None:
    print(said, file=sys.stderr, flush=True)
