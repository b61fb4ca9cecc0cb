"""Export and the parity gate, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import treelite
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contracts.errors import ReleaseError
from contracts.features import RANKED
from contracts.release import SCORE_TOLERANCE
from training import export, parity


def fitted(columns: int = len(RANKED), seed: int = 0) -> lightgbm.Booster:
    """A small ranker that looks at the first columns, some of them missing."""
    rng = np.random.default_rng(seed)
    rows = rng.random((1200, columns), dtype=np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    label = (np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) > 1).astype(int)
    chosen = {"objective": "lambdarank", "num_leaves": 7, "num_threads": 1, "verbosity": -1}
    return lightgbm.train(chosen, lightgbm.Dataset(rows, label, group=[20] * 60), 10)


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    return fitted()


@pytest.fixture(scope="module")
def rows() -> parity.Floats:
    return np.random.default_rng(1).random((100, len(RANKED)), dtype=np.float32)


def configuration(models: Path) -> Any:
    text = (models / "ranker" / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_configuration_is_the_models(booster: lightgbm.Booster, tmp_path: Path) -> None:
    export.export(booster, tmp_path, 1)
    config = configuration(tmp_path)
    assert config.backend == "fil"
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("input__0", model_config_pb2.TYPE_FP32, [len(RANKED)])
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("output__0", model_config_pb2.TYPE_FP32, [1])
    ]
    assert config.HasField("dynamic_batching")
    assert config.version_policy.HasField("all")
    assert config.max_batch_size >= 1000
    values = {name: value.string_value for name, value in config.parameters.items()}
    assert values["model_type"] == "treelite_checkpoint"
    assert values["is_classifier"] == values["output_class"] == "false"


def test_dimensions_follow_the_model_and_not_the_code(tmp_path: Path) -> None:
    export.export(fitted(columns=5), tmp_path, 1)
    assert list(configuration(tmp_path).input[0].dims) == [5]


def test_both_files_hold_the_model(
    booster: lightgbm.Booster, rows: parity.Floats, tmp_path: Path
) -> None:
    folder = export.export(booster, tmp_path, 3)
    assert folder == tmp_path / "ranker" / "3"
    assert export.require(tmp_path, 3) == folder
    expected = parity.native_scores(booster, rows)
    again = lightgbm.Booster(model_file=str(folder / "model.txt"))
    np.testing.assert_allclose(parity.native_scores(again, rows), expected)
    np.testing.assert_allclose(parity.treelite_scores(folder, rows), expected, atol=2e-5)
    assert treelite.Model.deserialize(str(folder / "checkpoint.tl")).num_feature == len(RANKED)


def test_an_export_leaves_only_versions_and_the_configuration(
    booster: lightgbm.Booster, tmp_path: Path
) -> None:
    """Whatever else lay there Triton would take for a model or a version."""
    for version in (1, 2, 2):
        export.export(booster, tmp_path, version)
    assert [path.name for path in tmp_path.iterdir()] == ["ranker"]
    assert sorted(path.name for path in (tmp_path / "ranker").iterdir()) == [
        "1", "2", "config.pbtxt",
    ]  # fmt: skip


def test_prune_keeps_what_is_named(booster: lightgbm.Booster, tmp_path: Path) -> None:
    for version in (1, 2, 10):
        export.export(booster, tmp_path, version)
    assert export.prune(tmp_path, {2, 10, 99}) == [1]
    assert export.exported_versions(tmp_path) == [2, 10]


def test_a_version_that_is_not_whole_is_named(booster: lightgbm.Booster, tmp_path: Path) -> None:
    folder = export.export(booster, tmp_path, 1)
    (folder / "checkpoint.tl").unlink()
    with pytest.raises(ReleaseError, match=r"lacks checkpoint\.tl"):
        export.require(tmp_path, 1)
    with pytest.raises(ReleaseError, match="version 7 is not whole"):
        export.require(tmp_path, 7)


def test_the_gate_is_open_for_the_model_itself(
    booster: lightgbm.Booster, rows: parity.Floats, tmp_path: Path
) -> None:
    folder = export.export(booster, tmp_path, 1)
    probe = parity.probe_rows(rows)
    assert np.isnan(probe).any()
    scores = parity.treelite_scores(folder, probe)
    assert parity.gap(parity.native_scores(booster, probe), scores, "treelite") <= SCORE_TOLERANCE


def test_the_gate_is_shut_for_another_model(
    booster: lightgbm.Booster, rows: parity.Floats, tmp_path: Path
) -> None:
    folder = export.export(booster, tmp_path, 1)
    other = fitted(seed=5)
    treelite.frontend.from_lightgbm(other).serialize(str(folder / "checkpoint.tl"))
    scores = parity.treelite_scores(folder, rows)
    with pytest.raises(ReleaseError, match="treelite and LightGBM differ by"):
        parity.gap(parity.native_scores(booster, rows), scores, "treelite")


def test_no_number_is_no_agreement() -> None:
    with pytest.raises(ReleaseError, match="differ by nan"):
        parity.gap(np.array([1.0, 2.0]), np.array([1.0, np.nan]), "the served model")
