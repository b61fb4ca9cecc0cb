"""A small ranker in Triton's model repository, for tests of the server itself."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import treelite
from numpy.typing import NDArray

WIDTH = 8
CONFIG = """name: "{name}"
backend: "fil"
max_batch_size: 4096
input [{{ name: "input__0" data_type: TYPE_FP32 dims: [ {width} ] }}]
output [{{ name: "output__0" data_type: TYPE_FP32 dims: [ 1 ] }}]
instance_group [{{ count: 2 kind: KIND_CPU }}]
dynamic_batching {{ }}
parameters [
  {{ key: "model_type" value: {{ string_value: "treelite_checkpoint" }} }},
  {{ key: "is_classifier" value: {{ string_value: "false" }} }},
  {{ key: "output_class" value: {{ string_value: "false" }} }}
]
"""


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Rows with a tenth of the values missing."""
    random = np.random.default_rng(seed)
    made = random.normal(size=(count, WIDTH)).astype(np.float32)
    made[random.random(made.shape) < 0.1] = np.nan
    return made


def train(trees: int = 40) -> lightgbm.Booster:
    """LambdaRank on groups of twenty: what is high in column 0, or missing there, is clicked."""
    features = rows(4000)
    first = features[:, 0]
    labels = (np.isnan(first) | (first > 0.5)).astype(int)
    data = lightgbm.Dataset(features, labels, group=[20] * 200)
    settings = {"objective": "lambdarank", "num_leaves": 15, "verbose": -1, "num_threads": 1}
    return lightgbm.train(settings, data, trees)


def write(
    models: Path,
    name: str,
    booster: lightgbm.Booster,
    *,
    version: int = 1,
    with_text: bool = True,
    width: int = WIDTH,
) -> None:
    """`models/name/version`: a checkpoint, and with `with_text` LightGBM's text beside it."""
    folder = models / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    treelite.frontend.from_lightgbm(booster).serialize(str(folder / "checkpoint.tl"))
    if with_text:
        booster.save_model(folder / "model.txt")
    (models / name / "config.pbtxt").write_text(CONFIG.format(name=name, width=width))
