"""Feast's store, opened from the settings; `feast apply` and `feast materialize` for programs."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from contracts.errors import ServiceError, UsageError
from contracts.features import VIEWS, Group, View, of_view
from contracts.settings import Settings
from feast_engine.config import REPOSITORY, online_config, store_yaml
from feast_engine.connection import connect, unreachable

Report = Callable[[str, int, int], None]
"""Called with what is being done, the steps done and all steps."""

APPLY_SECONDS = 180
PROBE_SECONDS = 2.0
_SHOWN_LINES = 15


def open_store(settings: Settings) -> Any:
    """The `feast.FeatureStore` of the settings. UsageError where it was never applied."""
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    _require_registry(settings)
    config = RepoConfig(**store_yaml(settings))
    config.repo_path = REPOSITORY
    return FeatureStore(config=config)


def apply(settings: Settings) -> str:
    """`feast apply` with these settings: the same command, in a process of its own, because Feast
    changes folder and imports the repository's modules. Returns what it printed.

    ServiceError with its last lines when it fails.
    """
    if "://" not in settings.feast_registry:
        Path(settings.feast_registry).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "feast.cli.cli", "-c", str(REPOSITORY)]
    command += ["-f", str(settings.feast_yaml), "apply"]
    environment = {**os.environ, **settings.environment()}
    try:
        done = subprocess.run(
            command, env=environment, cwd=REPOSITORY, timeout=APPLY_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ServiceError(f"feast apply took over {APPLY_SECONDS} s and was stopped") from None
    if done.returncode:
        last = "\n".join(done.stdout.strip().splitlines()[-_SHOWN_LINES:])
        raise ServiceError(f"feast apply failed:\n{last}")
    return done.stdout


def materialize(settings: Settings, until: datetime, report: Report | None = None) -> None:
    """The newest row of each item up to `until` (with a time zone) from the offline tables into
    the online store, by Feast's own `materialize`: of each view, what is not too old by then.
    Views that the ranker does not read (trends) where they have a table.

    UsageError where another table is not there yet; ServiceError where Redis does not answer.
    """
    if until.tzinfo is None:
        raise UsageError(f"until: got {until} without a time zone, expected one (UTC)")
    views = _item_views(settings)
    _require_tables(settings, views)
    _require_redis(settings)
    store = open_store(settings)
    for done, view in enumerate(views):
        if report is not None:
            report(f"materialize {view.name}", done, len(views))
        _materialize_view(store, view, until)
    if report is not None:
        report("materialized", len(views), len(views))


def _item_views(settings: Settings) -> list[View]:
    return [
        view
        for view in VIEWS.values()
        if view.group is Group.item
        and (any(feature.ranked for feature in of_view(view.name)) or _has_table(settings, view))
    ]


def _has_table(settings: Settings, view: View) -> bool:
    from pyarrow import fs

    offline = settings.offline.replace("s3a://", "s3://", 1)
    if "://" in offline:
        system, root = fs.FileSystem.from_uri(offline)
    else:
        system, root = fs.LocalFileSystem(), offline
    selector = fs.FileSelector(f"{root}/{view.name}", recursive=True, allow_not_found=True)
    return any(info.path.endswith(".parquet") for info in system.get_file_info(selector))


def _materialize_view(store: Any, view: View, until: datetime) -> None:
    start = datetime.fromtimestamp(0, UTC) if view.max_age is None else until - view.max_age
    with quiet_feast():
        store.materialize(start, until, feature_views=[view.name])


@contextlib.contextmanager
def quiet_feast() -> Any:
    """Feast prints its progress and ibis warns of its own calls: neither is for our reader."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):  # tqdm's bar
            yield


def _require_registry(settings: Settings) -> None:
    registry = store_yaml(settings)["registry"]
    if isinstance(registry, str) and "://" not in registry:
        path = REPOSITORY / registry  # an absolute path stays as it is
        if not path.exists():
            raise UsageError(
                f"Feast's registry {path} is not there: run feast -c feature_repo apply, "
                "or ./nextclick demo, which does it"
            )


def _require_tables(settings: Settings, views: list[View]) -> None:
    if "://" in settings.offline:
        return
    for view in views:
        folder = Path(settings.offline) / view.name
        if not any(folder.rglob("*.parquet")):
            raise UsageError(
                f"{folder} holds no Parquet files: the Spark jobs make them (./nextclick train)"
            )


def _require_redis(settings: Settings) -> None:
    """Feast's own error for this is a traceback of five libraries."""
    try:
        with contextlib.closing(connect(settings, PROBE_SECONDS)) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        raise unreachable(online_config(settings), error) from error
