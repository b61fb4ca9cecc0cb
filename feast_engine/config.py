"""The feature_store.yaml that the settings name, with its ${VARIABLES} filled in.

One file says where Redis is, how it is spoken to and how long keys live: Feast, the reader and
the writer all go by it. Nothing here imports Feast, which costs seconds and 180 MB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from contracts.errors import UsageError
from contracts.settings import ROOT, Settings

REPOSITORY = ROOT / "feature_repo"
ONLINE_STORE: Final = "feast_engine.online_store.GuardedRedisOnlineStore"
"""Feast's name of our online store, as the yaml says it."""
BATCH_ENGINE: Final = "feast_engine.batch_engine.BulkEngine"
"""Feast's name of our batch engine."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class OnlineConfig:
    """Where Feast's online values lie. `connection` is Feast's connection string, with password."""

    project: str
    connection: str
    cluster: bool
    key_seconds: int | None


def store_yaml(settings: Settings) -> dict[str, Any]:
    """The expanded yaml as Feast's RepoConfig takes it.

    The password of the settings is added where the file does not place it itself. UsageError
    where the file cannot be read, or names a variable that is no setting.
    """
    path = settings.feast_yaml
    parsed = _load(path, _expand(path, settings.environment()))
    online = parsed.get("online_store")
    if not isinstance(online, dict) or online.get("type") != ONLINE_STORE:
        found = online.get("type") if isinstance(online, dict) else online
        raise UsageError(
            f"{path}: online_store has type {found!r}, expected {ONLINE_STORE}: with another one "
            "Feast would give values that are too old, and let older rows replace newer ones"
        )
    password = settings.redis_password.get_secret_value()
    if password and ",password=" not in online["connection_string"]:
        online["connection_string"] += f",password={password}"
    return parsed


def online_config(settings: Settings) -> OnlineConfig:
    parsed = store_yaml(settings)
    online = parsed["online_store"]
    return OnlineConfig(
        project=parsed["project"],
        connection=online["connection_string"],
        cluster=online.get("redis_type") == "redis_cluster",
        key_seconds=online.get("key_ttl_seconds"),
    )


def _expand(path: Path, variables: dict[str, str]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"NEXTCLICK_FEAST_YAML: cannot read {path}: {error.strerror}") from None
    unknown = sorted({name for name in _VARIABLE.findall(text) if name not in variables})
    if unknown:
        raise UsageError(f"{path}: {', '.join(unknown)}: no settings (docs/settings.md lists them)")
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def _load(path: Path, text: str) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from None
    if not isinstance(parsed, dict):
        raise UsageError(f"{path}: got {type(parsed).__name__}, expected Feast's configuration")
    return parsed
