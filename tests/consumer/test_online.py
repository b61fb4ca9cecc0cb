"""States as tables are the rows that they are one by one, to the byte."""

from __future__ import annotations

from pathlib import Path
from random import Random

from contracts.session import KEPT_EVENTS, SessionEvent, SessionState
from contracts.settings import Settings
from feast_engine.connection import connect
from feast_engine.writer import OnlineWriter, ViewWrite
from orchestrator.consumer.online import VIEWS, rows, tables

ITEMS = ("", "7", "ü☃𝄞", "a" * 127, "b" * 300)
HOUR = 3_600_000


def state_of(draw: Random, size: int) -> SessionState:
    """Visits with pauses, unknown places and codes, times before 1970 and late offsets."""
    events = [
        SessionEvent(
            draw.choice((0, 1_700_000_000_000)) + draw.randrange(-HOUR, HOUR), draw.randrange(-(2**63), 2**63),
            draw.randrange(1, 8), draw.choice(ITEMS), draw.randrange(-1, 200), draw.randrange(5),
            draw.randrange(7), draw.randrange(-1, 2**40),
        )
        for _ in range(size)
    ]  # fmt: skip
    return SessionState(tuple(sorted(events)))


def test_tables_of_states_are_their_rows(tmp_path: Path) -> None:
    draw = Random(11)  # noqa: S311
    sizes = (1, 1, 2, 5, 12, 13, 40, KEPT_EVENTS)
    states = {f"s{n}" * (1 + n * 50): state_of(draw, size) for n, size in enumerate(sizes)}
    settings = Settings(home=tmp_path)
    writer = OnlineWriter(settings, connect(settings))
    sessions, times, columns = rows(states)
    for view, table in tables(states).items():
        versions = columns["session"]["session_version"]
        expected = writer._rows(ViewWrite(view, sessions, times, columns[view], versions))
        assert expected.version
        assert writer._encoded(view, table) == expected
    assert tuple(tables(states)) == VIEWS
