"""The embedded stack's services, in the order in which they start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from contracts.errors import UsageError
from contracts.settings import Settings
from local_stack.java import ensure_java
from local_stack.kafka import kafka
from local_stack.mlflow import mlflow
from local_stack.product import api, consumer, stream
from local_stack.redis import redis
from local_stack.service import Service
from local_stack.tools import (
    Report,
    ensure_kafka,
    ensure_libpython,
    ensure_triton_environment,
)
from local_stack.triton import triton

DEFINITIONS: dict[str, Callable[[Settings], Service]] = {
    "redis": redis,
    "kafka": kafka,
    "mlflow": mlflow,
    "triton": triton,
    "consumer": consumer,
    "stream": stream,
    "api": api,
}
INFRASTRUCTURE = ("redis", "kafka", "mlflow", "triton")
"""What the jobs need; the product's own programs come when there is a release to serve."""

Definitions = dict[str, Callable[[Settings], Service]]


def in_order(names: Sequence[str] | None, definitions: Definitions | None = None) -> list[str]:
    """These services (None: all) in starting order. UsageError names one that does not exist."""
    known = list(DEFINITIONS if definitions is None else definitions)
    for name in names or ():
        if name not in known:
            raise UsageError(f"{name!r} is no service; there are: {', '.join(known)}")
    return [name for name in known if names is None or name in names]


def default_services(settings: Settings) -> list[str]:
    """What `up` starts when it is not told: all, the stream where the setting asks for it."""
    return [name for name in DEFINITIONS if settings.stream or name != "stream"]


def bring_tools(settings: Settings, names: Sequence[str], report: Report) -> None:
    """What these services need beyond the product's environment; at once when it is there."""
    if "kafka" in names or "stream" in names:
        ensure_java(settings)
    if "kafka" in names:
        ensure_kafka(settings, report)
    if "triton" in names:
        ensure_libpython()
        ensure_triton_environment(settings, report)
