"""The embedded `fil` backend, run in this process with a stand-in for Triton's own module."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.settings import ROOT
from tests.stack.small_ranker import WIDTH, rows, train, write

Rows = NDArray[np.float32]


class Tensor:
    def __init__(self, name: str, values: Rows) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> Rows:
        return self.values


class Response:
    def __init__(self, tensors: list[Tensor] | None = None, error: Exception | None = None) -> None:
        self.tensors, self.error = tensors, error


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The backend's module; nothing is compiled, so LightGBM serves."""
    triton: Any = types.ModuleType("triton_python_backend_utils")
    triton.Tensor, triton.InferenceResponse = Tensor, Response
    triton.TritonError = triton.TritonModelException = RuntimeError
    triton.Logger = types.SimpleNamespace(log_info=lambda _: None)
    triton.get_input_tensor_by_name = lambda request, _: request
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    path = ROOT / "local_stack/triton_backend/fil/model.py"
    spec = importlib.util.spec_from_file_location("fil_model", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "start_compiling", lambda *_: None)
    monkeypatch.setattr(module, "compiled_path", lambda _: tmp_path / "never.o")
    return module


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    return train()


def config(**parameters: str) -> dict[str, Any]:
    given = {"model_type": "treelite_checkpoint", **parameters}
    return {"name": "ranker", "parameters": {k: {"string_value": v} for k, v in given.items()}}


def load(backend: Any, models: Path, **parameters: str) -> Any:
    model = backend.TritonPythonModel()
    arguments = {
        "model_config": json.dumps(config(**parameters)),
        "model_repository": str(models / "ranker"),
        "model_version": "1",
        "model_name": "ranker",
    }
    model.initialize(arguments)
    return model


@pytest.mark.parametrize("with_text", [True, False], ids=["LightGBM", "treelite"])
def test_each_engine_scores_as_lightgbm_does(
    backend: Any, tmp_path: Path, booster: lightgbm.Booster, with_text: bool
) -> None:
    write(tmp_path, "ranker", booster, with_text=with_text)
    model = load(backend, tmp_path)
    asked = rows(300, seed=1)
    (answer,) = model.execute([Tensor("input__0", asked)])
    scores = answer.tensors[0].values
    assert scores.dtype == np.float32
    assert scores.shape == (300,)
    np.testing.assert_allclose(scores, booster.predict(asked), atol=2e-5)


def test_requests_of_one_batch_get_their_own_rows(
    backend: Any, tmp_path: Path, booster: lightgbm.Booster
) -> None:
    write(tmp_path, "ranker", booster)
    model = load(backend, tmp_path)
    parts = [rows(count, seed=count) for count in (3, 1, 7)]
    answers = model.execute([Tensor("input__0", part) for part in parts])
    for part, answer in zip(parts, answers, strict=True):
        np.testing.assert_allclose(answer.tensors[0].values, booster.predict(part), atol=2e-5)


def test_a_wrong_width_spoils_only_its_own_request(
    backend: Any, tmp_path: Path, booster: lightgbm.Booster
) -> None:
    write(tmp_path, "ranker", booster)
    model = load(backend, tmp_path)
    wrong = np.zeros((2, WIDTH - 1), np.float32)
    refused, answered = model.execute([Tensor("input__0", wrong), Tensor("input__0", rows(2))])
    assert f"shape [2, {WIDTH - 1}], expected [n, {WIDTH}]" in str(refused.error)
    assert answered.error is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model_type": "xgboost"}, "model_type is 'xgboost', expected one of"),
        ({"is_classifier": "true"}, 'set it to "false"'),
        ({"output_class": "true"}, "output_class is 'true'"),
    ],
)
def test_a_configuration_it_cannot_serve_is_refused(
    backend: Any, tmp_path: Path, parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        load(backend, tmp_path, **parameters)


def test_a_missing_model_file_is_named(backend: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ranker/1/checkpoint\.tl is missing"):
        load(backend, tmp_path)


def test_the_configured_file_name_counts(backend: Any, tmp_path: Path) -> None:
    (tmp_path / "own.txt").touch()
    named = config(model_type="lightgbm") | {"default_model_filename": "own.txt"}
    assert backend.model_path(tmp_path, named) == tmp_path / "own.txt"
