"""The registry of sources and where vectors are searched."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from candidate_service.device import on_best_device, why_no_gpu
from candidate_service.sources import check_names, source_classes
from contracts.candidates import OF_ANSWER, SIGNALS, SOURCES
from contracts.errors import UsageError


def test_every_named_source_has_its_class() -> None:
    classes = source_classes()
    assert tuple(classes) == SOURCES
    assert all({"weight", "quota"} <= set(cls.defaults) for cls in classes.values())
    assert all({"weight", "quota", *cls.asked} <= set(cls.defaults) for cls in classes.values())
    signals = [name for cls in classes.values() for name in cls.signals]
    assert (*OF_ANSWER, *signals) == SIGNALS
    assert sum(cls.defaults["quota"] for cls in classes.values()) <= 1


def test_a_source_that_is_not_named_is_told() -> None:
    with pytest.raises(UsageError, match=r"\['other'\] are not in SOURCES"):
        check_names([*SOURCES, "other"], SOURCES)


def test_a_name_without_a_source_is_told() -> None:
    with pytest.raises(UsageError, match=r"names \['other'\], for which no class"):
        check_names(SOURCES, [*SOURCES, "other"])


def test_why_no_gpu() -> None:
    assert "no GPU support" in why_no_gpu(SimpleNamespace())
    none = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 0)
    assert "finds no GPU" in why_no_gpu(none)
    one = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 1)
    assert why_no_gpu(one) == ""


def _index() -> Any:
    index = faiss.IndexFlatIP(2)
    index.add(np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32))
    return index


def test_the_cpu_answers_where_there_is_no_gpu(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candidate_service.device.why_no_gpu", lambda _: "none in this test")
    with caplog.at_level(logging.INFO):
        search = on_best_device(_index())
    assert "CPU: none in this test" in caplog.text
    rows, products = search(np.array([0, 1], dtype=np.float32), 99)
    assert rows.tolist() == [1, 2, 0]
    np.testing.assert_allclose(products, [1, 0.8, 0], rtol=1e-6)


@pytest.mark.skipif(bool(why_no_gpu(faiss)), reason="no GPU, or a FAISS without GPU support")
def test_the_gpu_answers_as_the_cpu_does() -> None:
    rows, products = on_best_device(_index())(np.array([0, 1], dtype=np.float32), 99)
    assert rows.tolist() == [1, 2, 0]
    np.testing.assert_allclose(products, [1, 0.8, 0], rtol=1e-5)
