"""Feast's Redis online store, made to tell the truth: `online_store.type` in the yaml names it.

The layout is Feast's own. Two things differ: a read gives no value that is older than its view's
maximum age (Feast applies it offline only), and a write never replaces a newer row by an older
one, whoever else writes (Feast compares in the client, between two round trips). A value is too
old when its event time lies more than the maximum age before now; at exactly that age it counts,
as it does in historical retrieval. `feast_engine.reader` applies the same rule.

The names and signatures of the methods are those of feast 0.67.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby
from typing import Any, Literal

from feast import FeatureView, RepoConfig, utils
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import (
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    RedisType,
    _versioned_fv_name,
)
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.errors import UsageError
from contracts.features import VIEWS
from feast_engine import guard
from feast_engine.config import ONLINE_STORE, OnlineConfig
from feast_engine.connection import connect_async_to, connect_to
from feast_engine.expiry import life_seconds
from feast_engine.guard import Rows, sized

Row = tuple[Any, Mapping[str, Any], datetime, datetime | None]
"""Feast's: entity key, values, event time, created time."""
Read = tuple[datetime | None, dict[str, Any] | None]
_STAMP = "_ts:"
_EPOCH, _MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)


class GuardedRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # untyped
    """As Feast's Redis store. `skip_dedup` would ask for writes without the rule."""

    type: Literal["feast_engine.online_store.GuardedRedisOnlineStore"] = ONLINE_STORE
    skip_dedup: Literal[False] = False


class GuardedRedisOnlineStore(RedisOnlineStore):  # type: ignore[misc]  # untyped
    """See the module."""

    _client: Any = None
    _client_async: Any = None

    # --- connections, which Feast opens without a time limit ---

    def _get_client(self, online_store_config: Any) -> Any:
        if online_store_config.redis_type == RedisType.redis_sentinel:
            return super()._get_client(online_store_config)
        if self._client is None:
            self._client = connect_to(_place(online_store_config))
        return self._client

    async def _get_client_async(self, online_store_config: Any) -> Any:
        if online_store_config.redis_type == RedisType.redis_sentinel:
            return await super()._get_client_async(online_store_config)
        if self._client_async is None:
            self._client_async = connect_async_to(_place(online_store_config))
        return self._client_async

    # --- writing ---

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        guard.write(self._get_client(config.online_store), _rows(config, table, data))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        client = await self._get_client_async(config.online_store)
        await guard.write_async(client, _rows(config, table, data))
        if progress:
            progress(len(data))

    async def close(self) -> None:
        """Feast would keep connections of an event loop that has ended."""
        client, self._client_async = self._client_async, None
        if client is not None:
            await client.aclose()

    # --- reading ---

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Any,
        requested_features: Any = None,
    ) -> list[Read]:
        """Values of rows that are too old, and of those that are not there, are None."""
        rows = super().online_read(config, table, entity_keys, requested_features)
        return _young(rows, table)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: Any,
        requested_features: Any = None,
    ) -> list[Read]:
        rows = await super().online_read_async(config, table, entity_keys, requested_features)
        return _young(rows, table)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        keys: Any,
        names: Any,
        response: Any,
        *rest: Any,
    ) -> None:
        """What `get_online_features` reads through."""
        first = len(response.results)
        super()._read_features_per_fv(config, grouped_refs, keys, names, response, *rest)
        _hide_old(config, grouped_refs, response, first)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: Any,
        keys: Any,
        names: Any,
        response: Any,
        *rest: Any,
    ) -> None:
        first = len(response.results)
        await super()._read_features_per_fv_async(
            config, grouped_refs, keys, names, response, *rest
        )
        _hide_old(config, grouped_refs, response, first)

    def _get_features_for_entity(
        self, values: Sequence[bytes | None], feature_view: str, requested_features: list[str]
    ) -> Read:
        """Feast gives a row of 1970 without values, and says PRESENT, where there is none."""
        if values[requested_features.index(f"{_STAMP}{feature_view}")] is None:
            return None, None
        read: Read = super()._get_features_for_entity(values, feature_view, requested_features)
        return read

    def _try_precomputed_fast_path(self, *_: Any) -> bool:
        """Vectors of a whole feature service bear one time for all views: no age can be told."""
        raise UsageError(
            "precompute_online is not supported: the maximum age of its values is not applied; "
            "feast_engine.reader reads a session and hundreds of items in a millisecond"
        )


def now() -> datetime:
    return datetime.now(UTC)


def _is_old(time: datetime, age: timedelta | None, moment: datetime) -> bool:
    """The one rule of age; an age of zero is Feast's way to say that values never age."""
    return bool(age) and moment - time > age  # type: ignore[operator]


def _young(rows: list[Read], table: FeatureView) -> list[Read]:
    moment = now()
    return [
        (time, None if time is None or _is_old(time, table.ttl, moment) else values)
        for time, values in rows
    ]


def _hide_old(config: RepoConfig, grouped_refs: Any, response: Any, first: int) -> None:
    """Take the values of old rows out of the answer, and say why they are missing.

    The answer's columns come view by view, in the order of `grouped_refs`; the last one of a view
    is its event time (Feast drops it afterwards).
    """
    moment = now()
    names = response.metadata.feature_names.val
    place = first
    for table, _ in grouped_refs:
        last = place
        while not names[last].endswith(f"{_STAMP}{_versioned_fv_name(table, config)}"):
            last += 1
        old = _old(response.results[place].event_timestamps, table.ttl, moment)
        for column in response.results[place : last + 1] if old else ():
            _hide(column, old)
        place = last + 1


def _old(times: Sequence[Any], age: timedelta | None, moment: datetime) -> list[int]:
    """Which of protobuf's Timestamps `_is_old` would name: their datetimes cost as much as Feast's
    own work."""
    if not age:
        return []
    oldest = (moment - _EPOCH) // _MICROSECOND - age // _MICROSECOND
    return [
        row
        for row, time in enumerate(times)
        if time.seconds * 1_000_000 + time.nanos // 1000 < oldest
    ]


def _hide(column: Any, rows: Sequence[int]) -> None:
    for row in rows:
        if column.statuses[row] == FieldStatus.PRESENT:
            column.values[row].Clear()
            column.statuses[row] = FieldStatus.OUTSIDE_MAX_AGE


def _place(online: Any) -> OnlineConfig:
    cluster = online.redis_type == RedisType.redis_cluster
    return OnlineConfig("", online.connection_string, cluster, online.key_ttl_seconds)


def _rows(config: RepoConfig, table: FeatureView, data: Sequence[Row]) -> Iterator[Rows]:
    """Feast's rows in order; those that follow each other with the same features together."""
    view = _versioned_fv_name(table, config)
    life = _life(config, table)
    for features, some in groupby(data, key=lambda row: tuple(row[1])):
        rows = list(some)
        cells = [
            b"".join(
                [
                    sized(_stamp(time)),
                    *(sized(value.SerializeToString()) for value in values.values()),
                ]
            )
            for _, values, time, _ in rows
        ]
        yield Rows(
            names=[f"{_STAMP}{view}".encode(), *(_mmh3(f"{view}:{name}") for name in features)],
            keys=[
                _redis_key(config.project, key, config.entity_key_serialization_version)
                for key, *_ in rows
            ],
            cells=b"".join(cells),
            ends=list(accumulate(map(len, cells))),
            life=life,
        )


def _stamp(time: datetime) -> bytes:
    stamp = Timestamp()
    stamp.FromDatetime(utils.make_tzaware(time))
    raw: bytes = stamp.SerializeToString()
    return raw


def _life(config: RepoConfig, table: FeatureView) -> int | None:
    seconds: int | None = config.online_store.key_ttl_seconds
    view = VIEWS.get(table.name)
    return seconds if view is None else life_seconds(view, seconds)
