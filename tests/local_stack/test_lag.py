"""What the status says of the consumer."""

from __future__ import annotations

from contracts.settings import Settings
from local_stack.lag import behind, behind_line
from orchestrator.consumer.health import Health, Metrics, serve


def test_how_far_the_consumer_is_behind_is_what_its_page_says() -> None:
    health = Health(joined=True, redis=True, lag=1234, waiting_for_lake=5)
    page = serve("127.0.0.1", 0, health, Metrics())
    try:
        found = behind(Settings.model_validate({"consumer_port": page.server_address[1]}))
        assert found == {"lag": 1234, "waiting_for_lake": 5}
        assert behind_line(found) == "consumer: 1,234 messages behind, 5 wait for the lake"
        health.joined = False
        assert behind(Settings.model_validate({"consumer_port": page.server_address[1]})) is None
    finally:
        page.shutdown()
        page.server_close()
    assert behind_line(None) == "consumer: not ready"
