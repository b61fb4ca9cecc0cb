"""What the offline store hands back: a job that is worked out when its rows are asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from contracts.errors import UsageError
from feast_engine.parquet_write import exists, overwrite
from feast_engine.sources import location


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]  # feast has no types
    """`evaluate`: gives the stored columns; its argument is a time limit in seconds, or None for
    the configured one. Feast adds the on-demand features."""

    def __init__(
        self,
        config: Any,
        evaluate: Callable[[float | None], pa.Table],
        metadata: RetrievalMetadata | None = None,
        on_demand: Sequence[Any] = (),
        full_names: bool = False,
    ) -> None:
        super().__init__()
        self._config = config
        self._evaluate = evaluate
        self._metadata = metadata
        self._on_demand = list(on_demand)
        self._full_names = full_names

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._evaluate(timeout)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        return self._full_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def persist(
        self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """The rows with their on-demand features as a saved data set: a file where the path ends in
        `.parquet`, else a folder."""
        source = storage.to_data_source()
        path, filesystem = location(source, self._config)
        if exists(path, filesystem) and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=source.path)
        overwrite(path, filesystem, self.to_arrow(timeout=timeout))

    def supports_remote_storage_export(self) -> bool:
        return self._config.offline_store.staging_location is not None

    def to_remote_storage(self) -> list[str]:
        """The rows as a Parquet file below `offline_store.staging_location`; its address."""
        if not self.supports_remote_storage_export():
            raise UsageError(
                "offline_store.staging_location is not set: there is nowhere to export to"
            )
        address = f"{self._config.offline_store.staging_location}/{uuid.uuid4()}/part-0.parquet"
        staging = SimpleNamespace(path=address, s3_endpoint_override=None)
        overwrite(*location(staging, self._config), self.to_arrow())
        return [address]
