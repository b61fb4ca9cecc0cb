"""Feast's offline store over Parquet that loses no row: `offline_store.type` in the yaml is
`feast_engine.offline_store.AsofOfflineStore`.

Every row that is asked for comes back once, in its place, with its own columns. A row of a view
counts by the rule of `feast_engine.join_rule`: as known at the time, unless the view has the tag
`as_known: "false"`. Feast's argument `filter_by_created_timestamp=True` hides unknown rows of all
views of a call, whatever their tags; False, Feast's default, leaves each view its own rule. Where
Feast names a source and no view (materialize), the registry's view of that source decides. Feast's
own batch engine asks for the newest rows only with `materialization_config.pull_latest_features:
true` and else picks them from all rows by itself; `feast_engine.batch_engine` always asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel
from pydantic import Field, StrictStr

from contracts.deadline import Deadline
from contracts.errors import UsageError
from feast_engine.asof import asof_join
from feast_engine.database import Limits
from feast_engine.entity_rows import EntityRows, entity_rows
from feast_engine.join_rule import JoinRule
from feast_engine.newest import in_utc, newest_rows, rows_between
from feast_engine.parquet import ParquetTable
from feast_engine.parquet_write import append, write_part
from feast_engine.retrieval import AsofRetrievalJob
from feast_engine.sources import AS_KNOWN, Stored, location, rule_of, table_of, tagged

LEAST_SECONDS = 0.001
"""Of a view when the time of the call is up: its join then says so."""


class AsofOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # feast has no types
    """The `offline_store:` lines of a feature_store.yaml."""

    type: StrictStr = "feast_engine.offline_store.AsofOfflineStore"
    memory_limit: StrictStr | None = Field(
        None, description="Such as 4GB; a quarter of the machine's. Above it joins spill."
    )
    temp_folder: StrictStr | None = Field(
        None, description="Where they spill; the system's temporary folder."
    )
    threads: int | None = Field(None, ge=1, description="One a core.")
    timeout_seconds: float = Field(3600.0, gt=0, description="Of a call.")
    s3_endpoint: StrictStr | None = Field(
        None, description="Of s3:// sources that name none; AWS_ENDPOINT_URL."
    )
    s3_region: StrictStr | None = Field(None, description="AWS_DEFAULT_REGION.")
    staging_location: StrictStr | None = Field(
        None, description="Where to_remote_storage() writes."
    )

    def limits(self, seconds: float | None = None) -> Limits:
        folder = None if self.temp_folder is None else Path(self.temp_folder)
        most = self.timeout_seconds if seconds is None else seconds
        return Limits(self.memory_limit, folder, self.threads, most)


class AsofOfflineStore(OfflineStore):  # type: ignore[misc]
    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: pd.DataFrame | None,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **_dates: datetime,
    ) -> AsofRetrievalJob:
        """The rows of entity_df with the features of the views beside them. UsageError without
        rows: Feast's start and end dates name no keys."""
        rows = entity_rows(entity_df)
        first, last = rows.span
        return AsofRetrievalJob(
            config,
            lambda seconds: historical_table(
                config, feature_views, feature_refs, rows, full_feature_names,
                as_known=True if filter_by_created_timestamp else None, seconds=seconds,
            ),
            RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in rows.table.column_names if name != rows.moment],
                min_event_timestamp=first,
                max_event_timestamp=last,
            ),
            OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            full_feature_names,
        )  # fmt: skip

    @staticmethod
    def pull_latest_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None,
        end_date: datetime,
    ) -> AsofRetrievalJob:
        """Of each key the newest row between the dates, as known at the end date."""

        def evaluate(seconds: float | None) -> pa.Table:
            table = table_of(data_source, config)
            columns, keys = _columns(
                table,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
            )
            end = in_utc(end_date)
            rule = JoinRule(
                {key: key for key in keys}, tuple(feature_name_columns), timestamp_field,
                created_timestamp_column or None,
                None if start_date is None else end - in_utc(start_date),
                as_known=known_of_source(config, data_source, feature_name_columns),
            )  # fmt: skip
            rows = newest_rows(table, rule, end, columns, limits_of(config, seconds))
            return rows if keys else _with_dummy(rows)

        return AsofRetrievalJob(config, evaluate)

    @staticmethod
    def pull_all_from_table_or_query(
        config: Any,
        data_source: Any,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> AsofRetrievalJob:
        """Every row between the dates, whenever it was created."""

        def evaluate(seconds: float | None) -> pa.Table:
            table = table_of(data_source, config)
            columns, keys = _columns(
                table,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
            )
            limits = limits_of(config, seconds)
            rows = rows_between(table, columns, timestamp_field, start_date, end_date, limits)
            return rows if keys or not join_key_columns else _with_dummy(rows)

        return AsofRetrievalJob(config, evaluate)

    @staticmethod
    def offline_write_batch(
        config: Any,
        feature_view: Any,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Add rows to the files of the view's source."""
        if feature_view.batch_source is None:
            raise UsageError(f"the view {feature_view.name!r} has no batch source to write to")
        append(*location(feature_view.batch_source, config), table)
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: Any,
        data: pa.Table | Path,
        source: Any,  # noqa: ARG004  # Feast's signature
        logging_config: Any,
        registry: Any,  # noqa: ARG004
    ) -> None:
        """A file more at the destination, or one in each folder `column=value` of `partition_by`,
        where the columns stay in the files too."""
        table = ds.dataset(data, format="parquet").to_table() if isinstance(data, Path) else data
        destination = logging_config.destination
        path, filesystem = location(destination.to_data_source(), config)
        for folder, part in _partitions(table, destination.partition_by or []):
            write_part(f"{path}{folder}", filesystem, part)

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> list[tuple[str, str]]:
        schema = table_of(data_source, config).schema
        return [(field.name, str(field.type)) for field in schema]


def limits_of(config: Any, seconds: float | None = None) -> Limits:
    """Of the yaml's offline store, whichever it is."""
    if isinstance(config.offline_store, AsofOfflineStoreConfig):
        return config.offline_store.limits(seconds)
    return AsofOfflineStoreConfig().limits(seconds)


def historical_table(
    config: Any,
    views: Sequence[Any],
    refs: Sequence[str],
    rows: EntityRows,
    full_names: bool = False,
    as_known: bool | None = None,
    seconds: float | None = None,
) -> pa.Table:
    """`rows.table` with the features that `refs` ("view:feature") ask of the views.

    as_known: whether rows are hidden until they were created; None: as each view says.
    """
    table, limits = rows.table, limits_of(config, seconds)
    deadline = Deadline(limits.seconds)
    for view in views:
        stored = Stored(view.batch_source.field_mapping if view.batch_source else {})
        prefix = f"{view.projection.name_to_use()}:"
        names = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
        left = replace(limits, seconds=max(deadline.remaining(), LEAST_SECONDS))
        found = asof_join(
            rows.table, table_of(view.batch_source, config), rule_of(view, as_known),
            [stored[name] for name in names], rows.moment, left,
        )  # fmt: skip
        shown = f"{view.projection.name_alias or view.name}__" if full_names else ""
        for name, column in zip(names, found.columns, strict=True):
            table = _with(table, f"{shown}{name}", column)
    return table


def _with(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    if name in table.column_names:
        raise UsageError(
            f"entity_df has a column {name!r} already: drop it, or ask with full_feature_names=True"
        )
    return table.append_column(name, column)


def known_of_source(config: Any, source: Any, features: Sequence[str]) -> bool:
    """Whether rows of a source are hidden until they were created: as the registry's views of that
    source with these columns say; where they disagree, yes."""
    from feast import FeatureStore

    if AS_KNOWN in source.tags:
        return tagged(source.tags)
    store = FeatureStore(repo_path=config.repo_path, config=config)  # the registry lies beside it
    views = store.registry.list_all_feature_views(config.project)
    of_source = []
    for view in views:
        own = getattr(view, "batch_source", None)
        if own is not None and own.name == source.name:
            stored = Stored(own.field_mapping)
            if {stored[field.name] for field in view.features} >= set(features):
                of_source.append(view)
    return all(tagged(view.tags) for view in of_source)


def _columns(
    table: ParquetTable,
    join_keys: Sequence[str],
    features: Sequence[str],
    event: str,
    created: str | None,
) -> tuple[list[str], list[str]]:
    """What to read and, of it, the keys. No features: Feast wants every column there is."""
    keys = [key for key in join_keys if key != DUMMY_ENTITY_ID]
    if not features:
        return list(table.schema.names), keys
    columns = [*keys, *features, event, *([created] if created else [])]
    return list(dict.fromkeys(columns)), keys


def _with_dummy(rows: pa.Table) -> pa.Table:
    """Feast's key of views without one."""
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * rows.num_rows))


def _partitions(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each folder below the destination; the folder "" without names."""
    if not names:
        yield "", table
        return
    for values in table.select(names).group_by(list(names)).aggregate([]).to_pylist():
        same, folder = None, ""
        for name, value in values.items():
            equal = pc.is_null(table[name]) if value is None else pc.equal(table[name], value)
            equal = pc.fill_null(equal, False)
            same = equal if same is None else pc.and_(same, equal)
            folder += f"/{name}={quote(str(value), safe='')}"
        yield folder, table.filter(same)
