"""The benchmark of the consumer, small: its figures are there, and what it consumed is right."""

from __future__ import annotations

from benchmarks.consume import measure, text


def test_what_the_benchmark_consumed_is_right() -> None:
    document = measure(events=3000)
    assert document["right"]
    assert document["events"] == document["lake_rows"] == document["messages"] == 3000
    assert document["sessions"] > 1000
    assert document["events_per_second"] >= 0
    assert {"consumer", "redis", "kafka"} <= document["cpu_us_per_event"].keys()
    assert "3,000 events" in text({**document, "raw": "-"})
