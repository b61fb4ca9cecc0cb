"""Processor time of the stack, by service, and of the load generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from contracts.settings import Settings

GENERATOR = "load generator"
Seen = dict[str, dict[tuple[int, float], float]]
"""Service → (process id, when it started) → seconds of processor time so far."""


def look(settings: Settings) -> Seen:
    """Every process of the stack (a service's whole tree, Triton's stubs too) and this one."""
    from local_stack.process import by_service

    groups: dict[str, Sequence[psutil.Process]] = dict(by_service(settings.home))
    groups[GENERATOR] = [psutil.Process()]
    return {name: _seconds(processes) for name, processes in groups.items()}


def spent(before: Seen, after: Seen) -> dict[str, float]:
    """Seconds by service between two looks; a process that came in between began at 0."""
    return {
        name: sum(now - before.get(name, {}).get(key, 0.0) for key, now in processes.items())
        for name, processes in after.items()
    }


def added(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in {**first, **second}}


def _seconds(processes: Sequence[psutil.Process]) -> dict[tuple[int, float], float]:
    found = {}
    for process in processes:
        try:
            times = process.cpu_times()
            found[process.pid, process.create_time()] = times.user + times.system
        except psutil.Error:  # ended meanwhile
            continue
    return found
