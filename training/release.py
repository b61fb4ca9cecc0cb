"""A release made whole, and checked whole."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from contracts.errors import NextclickError, ReleaseError
from contracts.features import FEATURE_SERVICE, RANKED, fingerprint
from contracts.release import MODEL_NAME, Release, ReleaseStore
from contracts.rules import DEFAULT, RULES_FILE, Rules, read_rules
from contracts.settings import Settings
from training import export, parity
from training.evaluate import Evaluated
from training.tracking import Tracked

REFERENCE_ROWS = 20_000
KEPT_RELEASES = 3
"""Newest releases whose rankers stay in Triton's repository, beside the live one."""


def make_release(
    settings: Settings,
    *,
    tracked: Tracked,
    index_version: str,
    metrics: dict[str, Any],
    gap: float,
    served: Evaluated,
    rules: Rules = DEFAULT,
    now: datetime | None = None,
) -> Release:
    """Write the release's folder, the manifest last. It is not live by that (`activate`)."""
    created = now or datetime.now(UTC)
    release = Release(
        version=f"r{created:%Y%m%d-%H%M%S}-v{tracked.version}",
        created=created,
        ranker_version=tracked.version,
        mlflow_run=tracked.run,
        index_version=index_version,
        features=RANKED,
        fingerprint=fingerprint(),
        feature_service=FEATURE_SERVICE,
        rules_version=rules.name,
        metrics=metrics,
        parity=gap,
    )
    store = ReleaseStore(settings.releases)
    folder = store.path(release.version)
    folder.mkdir(parents=True)
    (folder / RULES_FILE).write_text(rules.model_dump_json(indent=2, exclude_defaults=True))
    write_reference(served, folder / "reference.parquet")
    store.add(release)
    return release


def rules_of(settings: Settings) -> Rules:
    """The business rules of the next release: of the setting's file, else those of the live release.
    UsageError for a file that is not valid."""
    if settings.rules.name:
        return read_rules(settings.rules)
    store = ReleaseStore(settings.releases)
    live = store.active_version()
    return DEFAULT if live is None else store.rules(store.get(live))


def with_rules(
    settings: Settings, live: Release, rules: Rules, now: datetime | None = None
) -> Release:
    """A release like `live` with other rules: the same ranker, index and reference. Not live by that."""
    created, store = now or datetime.now(UTC), ReleaseStore(settings.releases)
    version = f"r{created:%Y%m%d-%H%M%S}-v{live.ranker_version}"
    while store.path(version).exists():  # another of this second
        created += timedelta(seconds=1)
        version = f"r{created:%Y%m%d-%H%M%S}-v{live.ranker_version}"
    release = live.model_copy(
        update={"version": version, "created": created, "rules_version": rules.name}
    )
    folder = store.path(version)
    shutil.copytree(store.path(live.version), folder, ignore=shutil.ignore_patterns("release.json"))
    (folder / RULES_FILE).write_text(rules.model_dump_json(indent=2, exclude_defaults=True))
    store.add(release)
    return release


def write_reference(served: Evaluated, path: Any) -> None:
    """What would have been served in the test window: one float column a feature, item and score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(served.scores)
    chosen = np.arange(count)
    if count > REFERENCE_ROWS:
        chosen = np.sort(np.random.default_rng(0).choice(count, REFERENCE_ROWS, replace=False))
    columns = {name: served.features[chosen, place] for place, name in enumerate(RANKED)}
    columns |= {"item_id": served.items[chosen], "score": served.scores[chosen]}
    pq.write_table(pa.table(columns), path)


def kept_rankers(store: ReleaseStore) -> set[int]:
    """Versions of rankers that Triton must go on serving: the newest releases' and the live one's."""
    names = set(store.versions()[-KEPT_RELEASES:])
    if live := store.active_version():
        names.add(live)
    return {store.get(name).ranker_version for name in names}


def check_release(settings: Settings, release: Release) -> None:
    """Everything the release names is there and fits: ReleaseError says what does not.

    The features mean what they meant; the index loads, with its checksums; the ranker's files are
    there and Triton serves that version, with as many columns.
    """
    from candidate_service.index import CandidateIndex

    release.check_features()
    ReleaseStore(settings.releases).rules(release)
    folder = settings.indexes / release.index_version
    try:
        index = CandidateIndex.load(folder)
    except (NextclickError, OSError) as error:
        raise ReleaseError(f"release {release.version}: candidate index: {error}") from None
    if index.version != release.index_version:
        raise ReleaseError(
            f"release {release.version} names the index {release.index_version}, {folder} holds"
            f" {index.version}"
        )
    export.require(settings.models, release.ranker_version)
    rows = np.zeros((1, len(release.features)), dtype=np.float32)
    score = parity.served_scores(settings, release.ranker_version, rows)
    if not np.isfinite(score).all():
        raise ReleaseError(
            f"release {release.version}: Triton's {MODEL_NAME} version {release.ranker_version}"
            f" answers {score[0]} to a row of zeros, expected a number"
        )
