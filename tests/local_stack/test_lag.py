"""The consumer's distance when Kafka is away; with Kafka: tests/stack/test_kafka.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from contracts.errors import ServiceError
from contracts.settings import Settings
from local_stack import lag


def test_a_kafka_that_is_away_is_a_service_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "QUESTION_SECONDS", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        kafka = f"127.0.0.1:{free.getsockname()[1]}"
    settings = Settings.model_validate({"home": tmp_path, "kafka": kafka})
    with pytest.raises(ServiceError, match=r"does not tell how far .*\(\./nextclick status\)"):
        lag.Lag(settings).messages()
