"""The consumer's lake on S3, served on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.consumer.lake import ParquetLake
from tests.consumer.lake_suite import check_lake
from tests.stack.test_offline_store import KEY, SECRET, seaweed

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's, which the import brings


def test_a_lake_on_s3_keeps_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    with seaweed(tmp_path) as bucket:
        endpoint = bucket.endpoint.removeprefix("http://")
        query = f"endpoint_override={endpoint}&scheme=http&region=us-east-1"
        lake = ParquetLake(f"s3a://{KEY}:{SECRET}@lake/events?{query}")
        check_lake(lake, bucket.filesystem(), "lake/events")
