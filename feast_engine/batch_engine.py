"""Feast's batch engine that fills the online store from Arrow columns: `batch_engine.type` in the
yaml names it.

Feast's own hands the store a protobuf message for each value. This one asks the configured offline
store for the newest rows, and sends them to the server as the bytes that it keeps, some thousand
rows at a time. `feast materialize`, `feast materialize-incremental` and `FeatureStore.materialize`
go through it. What becomes visible, and when, is recorded (`feast_engine.publications`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import redis
from feast import FeatureView, RepoConfig
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.repo_config import FeastConfigBaseModel
from feast.utils import _get_column_names
from pydantic import StrictStr

from contracts.errors import UsageError
from contracts.tables import EVENT_TIMESTAMP
from feast_engine import guard, publications
from feast_engine.columnar import encode_batch
from feast_engine.config import BATCH_ENGINE, OnlineConfig
from feast_engine.connection import unreachable
from feast_engine.expiry import FOR_SALE, GONE, life_seconds
from feast_engine.guard import Written
from feast_engine.layout import layout_of
from feast_engine.parquet import NoTable

_log = logging.getLogger(__name__)
BATCH_ROWS = 8192
"""Rows that are encoded at a time: some megabytes."""


class BulkEngineConfig(FeastConfigBaseModel):  # type: ignore[misc]  # untyped
    """`offline`: the folder or s3:// address of the offline tables, beside which publications are
    recorded."""

    type: Literal["feast_engine.batch_engine.BulkEngine"] = BATCH_ENGINE
    offline: StrictStr


@dataclass(frozen=True)
class _Span:
    """What a task asks for: rows that hold from `start` to `end`, both included."""

    view: FeatureView
    start: datetime
    end: datetime

    @classmethod
    def of(cls, task: MaterializationTask) -> _Span:
        if task.disable_event_timestamp:  # Feast's: everything there is
            return cls(task.feature_view, datetime.fromtimestamp(0, UTC), datetime.now(UTC))
        return cls(task.feature_view, _aware(task.start_time), _aware(task.end_time))


class BulkEngine(LocalComputeEngine):  # type: ignore[misc]  # untyped
    """See the module. Historical retrieval stays the local engine's."""

    def __init__(self, *, offline: str, repo_config: RepoConfig, **options: Any) -> None:
        options.pop("type", None)  # Feast passes on all of the yaml's lines
        super().__init__(repo_config=repo_config, **options)
        folder = Path(repo_config.repo_path or ".") / offline  # an absolute one stays as it is
        self.offline = offline if "://" in offline else str(folder.resolve())

    def _materialize_one(
        self, registry: Any, task: MaterializationTask, **_: Any
    ) -> LocalMaterializationJob:
        """ServiceError where Redis does not answer; the publication then stays without an end."""
        span = _Span.of(task)
        if task.only_latest is False:
            raise UsageError(
                f"{span.view.name}: the online store holds the newest row of a key only"
            )
        until_ms = int(span.end.timestamp() * 1000)
        job = f"{span.view.name}-{until_ms}"
        try:
            table = self._newest(registry, span)
        except NoTable as nothing:  # its job has not run, or is not wanted here
            _log.warning("%s: nothing to materialise: %s", span.view.name, nothing)
            return _succeeded(job)
        begun = publications.begin(self.offline, span.view.name, until_ms)
        written = self._write(span.view, table)
        publications.finish(self.offline, begun, written.rows + written.older)
        return _succeeded(f"{job}-{begun.started_ms}")

    def _newest(self, registry: Any, span: _Span) -> Any:
        """The rows to write, as an Arrow table in the names of the view."""
        view, source = span.view, span.view.batch_source
        entities = [registry.get_entity(name, self.repo_config.project) for name in view.entities]
        keys, features, time, created = _get_column_names(view, entities)
        table = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=keys,
            feature_name_columns=features,
            timestamp_field=time,
            created_timestamp_column=created,
            start_date=span.start,
            end_date=span.end,
        ).to_arrow()
        names = {**(source.field_mapping or {}), time: EVENT_TIMESTAMP}
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
        return without_gone(table, span.end)

    def _write(self, view: FeatureView, table: Any) -> Written:
        config = self.repo_config.online_store
        layout = layout_of(view.name, self.repo_config.project)
        life = life_seconds(layout.view, config.key_ttl_seconds)

        def batches() -> Iterator[guard.Rows]:
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                yield encode_batch(layout, batch, life)

        try:
            return guard.write(self.online_store._get_client(config), batches())
        except (redis.RedisError, OSError) as error:
            place = OnlineConfig(self.repo_config.project, config.connection_string, False, None)
            raise unreachable(place, error) from error


def _succeeded(job_id: str) -> LocalMaterializationJob:
    return LocalMaterializationJob(job_id=job_id, status=MaterializationJobStatus.SUCCEEDED)


def without_gone(table: Any, until: datetime) -> Any:
    """The rows but those of items that, by `until`, have not been for sale for `expiry.GONE`:
    nobody renews these online, where they expire."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if FOR_SALE not in table.column_names:
        return table
    since = pa.scalar(until - GONE, table.schema.field(EVENT_TIMESTAMP).type)
    gone = pc.and_(pc.equal(table[FOR_SALE], 0), pc.less(table[EVENT_TIMESTAMP], since))
    return table.filter(pc.invert(pc.fill_null(gone, False)))


def _aware(time: datetime) -> datetime:
    """Feast takes a time without a zone for UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
