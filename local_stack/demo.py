"""The main job, from nothing to a ranked answer. Each step is reused when it was done before."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contracts.errors import ReleaseError, UsageError
from contracts.release import Release, ReleaseStore
from contracts.settings import Settings
from local_stack.cli.progress import StepProgress
from local_stack.client import ask, describe_items, post
from local_stack.lag import wait_until_consumed
from local_stack.rebuild import STEPS as REBUILD_STEPS
from local_stack.rebuild import rebuild
from local_stack.replay import PastVisit, past_visits

STEPS = 8 + REBUILD_STEPS
REPLAYED = 400
"""Past visits that are asked again, so that the drift report has something to compare."""
KNOWN_SECONDS = 10.0
"""How long the demo waits for the events that it sent to be known."""


@dataclass(frozen=True)
class Source:
    """Whose events the lake holds: a file by its content, or the generated shop."""

    name: str
    digest: str

    @classmethod
    def of(cls, file: Path) -> Source:
        if not file.is_file():
            raise UsageError(f"EVENTS={file}: there is no such file")
        with file.open("rb") as stream:
            return cls(file.name, hashlib.file_digest(stream, "sha256").hexdigest())


def run_demo(
    settings: Settings,
    events: Path | None,
    mapping: dict[str, str] | None,
    progress: StepProgress,
) -> dict[str, Any]:
    """Everything; the document that `show.demo_text` makes readable."""
    file = events or _generated_shop(settings, progress)
    source = Source.of(file)
    _refuse_another_shop(settings, source)
    _bring_tools(settings, progress)
    _start(settings, progress)
    _fill(settings, file, source, mapping, progress)
    release = _release(settings, progress)
    with progress.step("a real visit, asked live"):
        answered = live_answer(settings)
    with progress.step(f"{REPLAYED} past visits, asked again"):
        _replay(settings, progress)
    with progress.step("drift report"):
        drift = _drift(settings, release, progress)
    return {
        "events": asdict(source),
        **answered,
        "release": release.version,
        "metrics": release.metrics,
        "drift": drift,
        "addresses": _addresses(settings),
        "seconds": {name: round(seconds, 1) for name, seconds in progress.seconds.items()},
    }


def _bring_tools(settings: Settings, progress: StepProgress) -> None:
    from local_stack.services import DEFINITIONS, bring_tools

    with progress.step("tools: Java, Kafka, Triton's environment"):
        bring_tools(settings, list(DEFINITIONS), progress)


def _generated_shop(settings: Settings, progress: StepProgress) -> Path:
    from local_stack.data.generate import write_shop

    file = settings.home / "generated-shop.parquet"
    if not file.exists():
        progress.note("no EVENTS=<file>: a shop with a planted structure is generated")
        write_shop(file)
    return file


def _refuse_another_shop(settings: Settings, source: Source) -> None:
    done = _done(settings)
    if done and done["digest"] != source.digest:
        raise UsageError(
            f"{settings.home} holds the events of {done['name']}; two shops do not mix."
            " Run `make clean-state` first, or set NEXTCLICK_HOME to another folder."
        )


def _start(settings: Settings, progress: StepProgress) -> None:
    from local_stack.stack import up

    with progress.step("embedded stack: Redis, Kafka, MLflow, Triton, consumer, API"):
        up(settings, None, progress)


def _fill(
    settings: Settings,
    file: Path,
    source: Source,
    mapping: dict[str, str] | None,
    progress: StepProgress,
) -> None:
    from local_stack.ingest import ingest

    if _done(settings):
        for step in ("events into Kafka", "consumer: online store and event lake"):
            with progress.step(step):
                progress.note(f"reused: the events of {source.name} are in the lake")
        return
    ingest(settings, file, progress, mapping, shift_to_now=True)
    _marker(settings).write_text(json.dumps(asdict(source)))


def _marker(settings: Settings) -> Path:
    return settings.home / "demo.json"


def _done(settings: Settings) -> dict[str, str] | None:
    """The source that was imported to its end."""
    marker = _marker(settings)
    return json.loads(marker.read_text()) if marker.exists() else None


def _release(settings: Settings, progress: StepProgress) -> Release:
    live = _usable_release(settings)
    if live is None:
        from training.train import Options

        return rebuild(settings, progress, Options(), activate_it=True)
    with progress.step("Spark, Feast, training, materialisation"):
        progress.note(f"reused: release {live.version} is live; ./nextclick train makes a new one")
    progress.skip(REBUILD_STEPS - 1)
    return live


def _usable_release(settings: Settings) -> Release | None:
    """The live release, if the code still means by its features what it was trained on."""
    live = ReleaseStore(settings.releases).active()
    try:
        if live:
            live.check_features()
    except ReleaseError:
        return None
    return live


def live_answer(settings: Settings) -> dict[str, Any]:
    """Send the events of a past visit with three clicks under a new session, then ask."""
    visit = past_visits(settings, at_least=3, count=1)[0]
    session, events = visit.as_new_session()
    accepted = post(settings, "/v1/events", events)
    answer = _ask_when_known(settings, session, accepted["accepted"])
    shown = [*visit.visited, visit.label, *(item["item_id"] for item in answer["items"])]
    return {
        "accepted": accepted["accepted"],
        "visited": list(visit.visited),
        "next": visit.label,
        "answer": answer,
        "items": describe_items(settings, shown),
    }


def _ask_when_known(settings: Settings, session: str, events: int) -> dict[str, Any]:
    """Events are accepted before the consumer has folded them into the visit, mostly by milliseconds;
    the last answer where it takes longer than `KNOWN_SECONDS`."""
    end = time.monotonic() + KNOWN_SECONDS
    while True:
        answer = ask(settings, session, (), (), 10)
        if answer["session"]["events"] >= events or time.monotonic() > end:
            return answer
        time.sleep(0.1)


def _replay(settings: Settings, progress: StepProgress) -> None:
    visits = past_visits(settings, at_least=1, count=REPLAYED)
    for done, visit in enumerate(visits):
        progress("POST /v1/recommend", done, len(visits))
        _ask_again(settings, visit)
    wait_until_consumed(settings, progress)


def _ask_again(settings: Settings, visit: PastVisit) -> None:
    session, events = visit.as_new_session()
    body = {"session_id": session, "events": events, "k": 20}
    post(settings, "/v1/recommend", body)


def _drift(settings: Settings, release: Release, progress: StepProgress) -> dict[str, Any]:
    from monitoring.drift import drift_report

    return drift_report(settings, release=release.version, report=progress).as_dict()


def _addresses(settings: Settings) -> dict[str, str]:
    return {
        "recommend": f"{settings.api}/v1/recommend",
        "API documentation": f"{settings.api}/openapi.json",
        "metrics": f"{settings.api}/metrics",
        "MLflow": settings.mlflow,
        "Triton": f"http://{settings.host}:{settings.triton_http_port}/v2/models/ranker",
    }
