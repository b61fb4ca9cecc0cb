"""Feast's sources and views as the join takes them: Parquet tables and join rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from contracts.errors import UsageError
from feast_engine.join_rule import JoinRule
from feast_engine.parquet import ParquetTable

AS_KNOWN = "as_known"
"""The tag of a view or, for what Feast asks by source only, of a source: "false" lets rows count
before they were created."""
CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 60.0
_ATTEMPTS = 3


def table_of(source: Any, config: Any) -> ParquetTable:
    """The Parquet files of a `feast.FileSource`. config: `feast.RepoConfig`."""
    path, filesystem = location(source, config)
    return ParquetTable(path, filesystem)


def location(source: Any, config: Any) -> tuple[str, Any]:
    """The path of a source's files and pyarrow's file system for it, None for the machine's own.

    source: a `FileSource`, or what has its `path` and `s3_endpoint_override`. UsageError for a
    source that is no Parquet.
    """
    from feast.data_format import ParquetFormat
    from feast.infra.offline_stores.file_source import FileSource

    kind = getattr(source, "file_format", None)
    if not hasattr(source, "path") or not (kind is None or isinstance(kind, ParquetFormat)):
        raise UsageError(
            f"the source {getattr(source, 'name', source)!r} is a {type(source).__name__}"
            f" ({type(kind).__name__}), expected a FileSource with Parquet files"
        )
    if not source.path.startswith("s3://"):
        return str(FileSource.get_uri_for_file_path(config.repo_path, source.path)), None
    endpoint = source.s3_endpoint_override or getattr(config.offline_store, "s3_endpoint", None)
    keys = source.resolve_credentials() if hasattr(source, "resolve_credentials") else None
    region = getattr(config.offline_store, "s3_region", None)
    held = tuple(sorted((keys or {}).items()))
    return source.path.removeprefix("s3://").rstrip("/"), _s3(endpoint, region, held)


@lru_cache(maxsize=8)
def _s3(endpoint: str | None, region: str | None, keys: tuple[tuple[str, str], ...]) -> Any:
    """S3 with time limits. What is not given comes from the environment, as AWS's own tools do."""
    from pyarrow import fs

    given = dict(keys)
    options = {
        "access_key": given.get("AWS_ACCESS_KEY_ID"),
        "secret_key": given.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": given.get("AWS_SESSION_TOKEN"),
        "region": given.get("AWS_DEFAULT_REGION") or region,
        "endpoint_override": endpoint,
    }
    return fs.S3FileSystem(
        **{name: value for name, value in options.items() if value},
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def rule_of(view: Any, as_known: bool | None = None) -> JoinRule:
    """The join rule of a stored `feast.FeatureView`, in the names of its source's columns.

    as_known: whether rows are hidden until they were created; None: as the view's tag says.
    """
    from feast.feature_view import DUMMY_ENTITY_ID

    source = view.batch_source
    if source is None:
        raise UsageError(f"the view {view.name!r} has no batch source: it has no past")
    stored = Stored(source.field_mapping)
    renamed = view.projection.join_key_map or {}
    names = [column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID]
    return JoinRule(
        keys={renamed.get(name, name): stored[name] for name in names},
        features=tuple(stored[field.name] for field in view.features),
        event=stored[source.timestamp_field],
        created=stored[source.created_timestamp_column] or None,
        max_age=view.ttl or None,  # Feast writes "never ages" as 0
        as_known=tagged(view.tags, source.tags) if as_known is None else as_known,
    )


class Stored:
    """Feast's names of columns → those of the source's files."""

    def __init__(self, field_mapping: Mapping[str, str]) -> None:
        self._stored = {feast: stored for stored, feast in field_mapping.items()}

    def __getitem__(self, name: str) -> str:
        return self._stored.get(name, name)


def tagged(*tags: Mapping[str, str]) -> bool:
    """Whether rows are hidden until they were created: the first tag that says, else yes."""
    for each in tags:
        if AS_KNOWN in each:
            if each[AS_KNOWN] not in ("true", "false"):
                raise UsageError(
                    f"the tag {AS_KNOWN} is {each[AS_KNOWN]!r}, expected true or false"
                )
            return each[AS_KNOWN] == "true"
    return True
