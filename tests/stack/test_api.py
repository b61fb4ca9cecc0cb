"""The API's behaviour on the real stack: the suite of tests/orchestrator, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from contracts.settings import Settings
from tests.orchestrator.api_suite import ApiSuite


@pytest.fixture(scope="module")
def api(api_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def body_limit(settings: Settings) -> int:
    return settings.max_body_bytes


class TestApi(ApiSuite):
    def test_bentoml_documents_itself(self, api: httpx.Client) -> None:
        assert api.get("/").status_code == 200
        assert api.get("/docs.json").json()["openapi"]
