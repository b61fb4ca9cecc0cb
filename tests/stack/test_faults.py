"""Real servers killed without warning, and what is left of the events: all of them, once."""

from __future__ import annotations

from benchmarks.faults import measure, text


def test_nothing_is_lost_or_counted_twice_whatever_is_killed() -> None:
    document = measure(events=6000, kills=3, redis_kills=1, broker_kills=1)
    assert document["kills"] == 3
    assert document["redis_kills"] == document["broker_kills"] == 1
    assert document["messages"] >= document["sent"] == 6000
    assert document["sessions"] > 1000
    assert {name: document[name] for name in ("lost", "twice", "states_differing")} == {
        "lost": 0, "twice": 0, "states_differing": 0,
    }  # fmt: skip
    assert "0 lost, 0 twice" in text({**document, "raw": "-"})
