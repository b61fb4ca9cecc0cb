"""Triton's `fil` backend where there is no container: tree models on the CPU.

Reads the same model configuration and files as NVIDIA's native backend, so that one model
repository serves in both. The engine is lleaves (the LightGBM model compiled to machine code); until
the compiled object is there, LightGBM itself; treelite's interpreter where a checkpoint comes alone.

Runs in Triton's own environment: numpy 1.26, and nothing of the product can be imported.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

MODEL_FILES = {"lightgbm": "model.txt", "treelite_checkpoint": "checkpoint.tl"}
CLASSIFIER_SETTINGS = ("is_classifier", "output_class", "predict_proba")
LOOK_SECONDS = 0.5
"""How often a model that runs on LightGBM looks whether its compiled object has come."""


class LightGbm:
    """LightGBM on one thread: two instances with one each beat one instance with two."""

    def __init__(self, path: Path) -> None:
        import lightgbm

        self._booster = lightgbm.Booster(model_file=str(path))
        self.width = self._booster.num_feature()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._booster.predict(rows, num_threads=1, validate_features=False)


class Compiled:
    """The object that `compile.py` left, loaded without compiling."""

    def __init__(self, path: Path, compiled: Path) -> None:
        import lleaves

        self._model = lleaves.Model(model_file=str(path))
        self._model.compile(cache=str(compiled))
        self.width = self._model.num_feature()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._model.predict(rows, n_jobs=1)


class Treelite:
    """A checkpoint without the LightGBM model beside it."""

    def __init__(self, path: Path) -> None:
        import treelite

        self._model = treelite.Model.deserialize(str(path))
        self.width = self._model.num_feature

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        import treelite

        return treelite.gtil.predict(self._model, rows, nthread=1).reshape(len(rows))


class TritonPythonModel:
    """One instance of one model; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        refuse_classifier(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        path = model_path(folder, config)
        self.name = args["model_name"]
        self._compiled: Path | None = None
        self._compiler: subprocess.Popen[bytes] | None = None
        self._looked = 0.0
        self._source = lightgbm_source(path)
        self._engine = Treelite(path) if self._source is None else self._begin(self._source)
        self._say(f"{path} ready on {type(self._engine).__name__}")

    def _begin(self, source: Path) -> Any:
        """The compiled engine when it is there; else LightGBM, with the compilation under way."""
        self._compiled = compiled_path(source)
        if self._compiled.exists():
            try:
                return Compiled(source, self._compiled)
            except Exception as error:  # noqa: BLE001  # of whatever kind, LightGBM serves
                self._say(f"{self._compiled} does not load, it is compiled anew: {error}")
                self._compiled.unlink(missing_ok=True)
        self._compiler = start_compiling(source, self._compiled)
        return LightGbm(source)

    def execute(self, requests: list[Any]) -> list[Any]:
        self._take_compiled()
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        rows = pb_utils.get_input_tensor_by_name(request, "input__0").as_numpy()
        if rows.ndim != 2 or rows.shape[1] != self._engine.width:
            message = (
                f"model {self.name!r}: input__0 has shape {list(rows.shape)},"
                f" expected [n, {self._engine.width}]"
            )
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        scores = np.asarray(self._engine(rows), dtype=np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("output__0", scores)])

    def _take_compiled(self) -> None:
        """Change over to the compiled object when it has come. One look in LOOK_SECONDS at most."""
        if self._compiled is None or isinstance(self._engine, Compiled):
            return
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._compiler is not None:
            self._compiler.poll()  # reaps it
        if self._compiled.exists():
            try:
                self._engine = Compiled(self._source, self._compiled)
                self._say(f"changed over to the compiled model {self._compiled.name}")
            except Exception as error:  # noqa: BLE001  # of whatever kind, LightGBM serves
                self._say(f"the compiled model does not load, LightGBM goes on: {error}")
                self._compiled = None

    def _say(self, text: str) -> None:
        pb_utils.Logger.log_info(f"fil: model {self.name!r}: {text}")


def refuse_classifier(config: dict[str, Any]) -> None:
    """This backend serves regressors and rankers: one score a row."""
    for name in CLASSIFIER_SETTINGS:
        if parameter(config, name, "false") != "false":
            raise pb_utils.TritonModelException(
                f"model {config['name']!r}: {name} is {parameter(config, name)!r}; the embedded fil"
                ' backend serves regressors and rankers, set it to "false"'
            )


def model_path(folder: Path, config: dict[str, Any]) -> Path:
    """The model's file, named as the native backend names it."""
    model_type = parameter(config, "model_type")
    if model_type not in MODEL_FILES:
        raise pb_utils.TritonModelException(
            f"model {config['name']!r}: model_type is {model_type!r}, expected one of {sorted(MODEL_FILES)}"
        )
    path = folder / (config.get("default_model_filename") or MODEL_FILES[model_type])
    if not path.exists():
        raise pb_utils.TritonModelException(f"model {config['name']!r}: {path} is missing")
    return path


def parameter(config: dict[str, Any], name: str, default: str = "") -> str:
    value: str = config.get("parameters", {}).get(name, {}).get("string_value", default)
    return value


def lightgbm_source(path: Path) -> Path | None:
    """LightGBM's own text of the model: the file itself, or the one beside a checkpoint."""
    if path.suffix == ".tl":
        path = path.with_name("model.txt")
    return path if path.exists() else None


def compiled_path(source: Path) -> Path:
    """Where the object compiled from this text for this machine's processor belongs."""
    import llvmlite.binding

    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    processor = llvmlite.binding.get_host_cpu_name()
    return Path(os.environ["FIL_COMPILED"]) / f"{digest}-{processor}.o"


def start_compiling(source: Path, compiled: Path) -> "subprocess.Popen[bytes]":
    """In the background; `compile.py` sees to it that several instances compile once."""
    python = Path(sys.prefix) / "bin/python"
    script = Path(__file__).with_name("compile.py")
    return subprocess.Popen([str(python), "-I", str(script), str(source), str(compiled)])
