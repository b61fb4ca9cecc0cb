"""The sources by name: one module each, and its name in `contracts.candidates.SOURCES`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache

from candidate_service.source import Source
from contracts.candidates import SOURCES
from contracts.errors import UsageError


@cache
def source_classes() -> dict[str, type[Source]]:
    """The class of each source, in the order of SOURCES. UsageError when code and SOURCES differ."""
    modules = [module.name for module in pkgutil.iter_modules(__path__)]
    found = {cls.name: cls for module in modules for cls in _classes(module)}
    check_names(found, SOURCES)
    return {name: found[name] for name in SOURCES}


def check_names(found: Iterable[str], named: Iterable[str]) -> None:
    """UsageError unless the sources that exist are those that are named."""
    unnamed, absent = sorted(set(found) - set(named)), sorted(set(named) - set(found))
    if unnamed:
        raise UsageError(
            f"candidate sources {unnamed} are not in SOURCES of contracts/candidates.py: add them"
        )
    if absent:
        raise UsageError(
            f"SOURCES of contracts/candidates.py names {absent}, for which no class stands in"
            " candidate_service/sources/: write it or take the name out"
        )


def _classes(module: str) -> list[type[Source]]:
    members = vars(importlib.import_module(f"{__name__}.{module}")).values()
    return [
        member
        for member in members
        if inspect.isclass(member) and issubclass(member, Source) and not inspect.isabstract(member)
    ]
