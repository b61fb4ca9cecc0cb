"""The ranker as Triton's repository holds it: `<models>/ranker/<version>/` and its configuration.

The configuration is written from the model: names, types and dimensions can't drift from it.
Settings of the FIL backend: triton-inference-server/fil_backend docs/model_config.md; older servers
read `output_class`, newer ones `is_classifier`, so both are written.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import ReleaseError
from contracts.release import MODEL_NAME, MODEL_TEXT, ranker_folder

if TYPE_CHECKING:
    import lightgbm

CHECKPOINT = "checkpoint.tl"  # what FIL reads (model_type treelite_checkpoint)
CONFIG = "config.pbtxt"
MAX_BATCH = 8192
INSTANCES = 2
PARAMETERS = {
    "model_type": "treelite_checkpoint",
    "is_classifier": "false",
    "output_class": "false",
    "predict_proba": "false",
    "threshold": "0.5",  # read for classifiers only, yet demanded by some versions
    "cpu_nthread": "1",  # two threads an instance double the tail under load
}


def config_text(features: int) -> str:
    """`config.pbtxt` of a ranker with that many columns, as protobuf text.

    All versions in the folder are served, so that a switch of releases, and a way back, needs
    nothing of Triton; `prune` keeps their number small.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    config = pb.ModelConfig(name=MODEL_NAME, backend="fil", max_batch_size=MAX_BATCH)
    config.input.add(name="input__0", data_type=pb.TYPE_FP32, dims=[features])
    config.output.add(name="output__0", data_type=pb.TYPE_FP32, dims=[1])
    config.instance_group.add(count=INSTANCES, kind=pb.ModelInstanceGroup.KIND_AUTO)
    config.dynamic_batching.SetInParent()
    config.version_policy.all.SetInParent()
    for name, value in PARAMETERS.items():
        config.parameters[name].string_value = value
    return str(text_format.MessageToString(config))


def export(booster: lightgbm.Booster, models: Path, version: int) -> Path:
    """Write the configuration, then the version's folder in one step. Gives the folder."""
    import treelite

    model = models / MODEL_NAME
    model.mkdir(parents=True, exist_ok=True)
    # within the model's folder, for the same file system; Triton passes over names that are no number
    with tempfile.TemporaryDirectory(dir=model, prefix=".export-") as scratch:
        written = Path(scratch) / str(version)
        written.mkdir()
        written.chmod(0o755)
        booster.save_model(str(written / MODEL_TEXT))
        treelite.frontend.from_lightgbm(booster).serialize(str(written / CHECKPOINT))
        _write_config(model / CONFIG, config_text(booster.num_feature()), Path(scratch))
        withdraw(models, version)
        written.replace(ranker_folder(models, version))
    return ranker_folder(models, version)


def _write_config(path: Path, text: str, scratch: Path) -> None:
    """In one step; left alone when it says the same, or Triton would reload every version."""
    if path.is_file() and path.read_text() == text:
        return
    written = scratch / path.name
    written.write_text(text)
    written.replace(path)


def withdraw(models: Path, version: int) -> None:
    """Take a version out of the repository; Triton lets go of it at its next load."""
    folder = ranker_folder(models, version)
    if folder.exists():
        shutil.rmtree(folder)


def exported_versions(models: Path) -> list[int]:
    found = (models / MODEL_NAME).glob("[0-9]*")
    return sorted(int(folder.name) for folder in found if folder.name.isdigit())


def prune(models: Path, keep: Collection[int]) -> list[int]:
    """Take out every version that is not to be kept; gives those that went."""
    gone = [version for version in exported_versions(models) if version not in keep]
    for version in gone:
        withdraw(models, version)
    return gone


def require(models: Path, version: int) -> Path:
    """The version's folder; ReleaseError when a file of it is missing."""
    folder = ranker_folder(models, version)
    missing = [name for name in (CHECKPOINT, MODEL_TEXT) if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(
            f"ranker version {version} is not whole: {folder} lacks {', '.join(missing)};"
            " train a new release (./nextclick train)"
        )
    return folder
