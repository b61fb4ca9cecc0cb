"""The embedded Triton: the server of the wheel nvidia-pytriton with the `fil` backend of ours.

It serves the same model repository as NVIDIA's container does.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from contracts.errors import ServiceError
from contracts.release import MODEL_NAME
from contracts.settings import Settings
from local_stack.process import processes_of
from local_stack.service import Service, http_call, http_json
from local_stack.tools import libpython_folder

VERSION = "2.51.0"
BACKENDS = Path(__file__).parent / "triton_backend"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # the kernel's own place for it
STUB = "triton_python_b"
"""The first 15 characters of the name of a model instance's process: as much as the kernel keeps."""


def triton(settings: Settings) -> Service:
    return Service(
        name="triton",
        command=_command(settings),
        environment=_environment(settings),
        folder=state(settings),
        ports={
            "triton_http_port": settings.triton_http_port,
            "triton_grpc_port": settings.triton_grpc_port,
            "triton_metrics_port": settings.triton_metrics_port,
        },
        url=f"http://{settings.host}:{settings.triton_http_port}",
        version=VERSION,
        probe=lambda: probe(settings),
        prepare=lambda: prepare(settings),
        start_seconds=60.0,
        hint="a model that does not load stops it: look at its config.pbtxt and files",
    )


def state(settings: Settings) -> Path:
    return settings.home / "triton"


def region_prefix(settings: Settings) -> str:
    """What the names of this stack's shared-memory regions begin with."""
    return f"nextclick_{hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]}_"


def remove_regions(settings: Settings, folder: Path = SHARED_MEMORY) -> int:
    """Delete the regions that killed servers of this stack left; how many there were."""
    left = list(folder.glob(region_prefix(settings) + "*"))
    for region in left:
        region.unlink(missing_ok=True)
    return len(left)


def prepare(settings: Settings) -> None:
    """Assemble the backends by copying (Triton rejects links) and clear what a killed server left."""
    remove_regions(settings)
    server = _server(settings)
    backends = state(settings) / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    shutil.copytree(server / "backends/python", backends / "python")
    stub = server / "python_backend_stubs/3.11/triton_python_backend_stub"
    shutil.copy2(stub, backends / "python" / stub.name)
    shutil.copytree(
        BACKENDS, backends, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    compiled = _compiled(settings)
    compiled.mkdir(parents=True, exist_ok=True)
    for failed in compiled.glob("*.failed"):
        failed.unlink()
    settings.models.mkdir(parents=True, exist_ok=True)


def probe(settings: Settings) -> None:
    """A real inference where the ranker is loaded, else readiness; no model instance may be dead.

    Triton never restarts a dead instance and still calls the model ready; an inference may meet one
    that lives, hence the look at the processes.
    """
    host, port = settings.host, settings.triton_http_port
    http_call(host, port, "/v2/health/ready")
    dead = _dead_stubs(settings)
    if dead:
        raise ServiceError(f"{dead} model instance(s) of Triton are dead")
    if has_ranker(settings):
        metadata = http_json(host, port, f"/v2/models/{MODEL_NAME}")
        http_json(host, port, f"/v2/models/{MODEL_NAME}/infer", zero_rows(metadata))


def has_ranker(settings: Settings) -> bool:
    """Whether the running server has the ranker loaded."""
    index = http_json(settings.host, settings.triton_http_port, "/v2/repository/index", {})
    return any(model["name"] == MODEL_NAME and model.get("state") == "READY" for model in index)


def zero_rows(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An inference request of one row of zeros, shaped by the model's own metadata."""
    inputs = []
    for tensor in metadata["inputs"]:
        shape = [max(1, int(size)) for size in tensor["shape"]]
        count = 1
        for size in shape:
            count *= size
        inputs.append(
            {
                "name": tensor["name"],
                "datatype": tensor["datatype"],
                "shape": shape,
                "data": [0] * count,
            }
        )
    return {"inputs": inputs}


def _dead_stubs(settings: Settings) -> int:
    dead = 0
    for process in processes_of(settings.home, "triton", whole=True):
        try:
            if process.name().startswith(STUB) and process.status() == psutil.STATUS_ZOMBIE:
                dead += 1
        except psutil.Error:
            continue
    return dead


def _server(settings: Settings) -> Path:
    return _site(settings) / "pytriton/tritonserver"


def _site(settings: Settings) -> Path:
    return settings.tools / "triton/lib/python3.11/site-packages"


def _compiled(settings: Settings) -> Path:
    return state(settings) / "compiled"


def _command(settings: Settings) -> tuple[str, ...]:
    command = [
        str(_server(settings) / "bin/tritonserver"),
        f"--model-repository={settings.models}",
        f"--backend-directory={state(settings) / 'backends'}",
        f"--http-address={settings.host}",
        f"--http-port={settings.triton_http_port}",
        f"--grpc-address={settings.host}",
        f"--grpc-port={settings.triton_grpc_port}",
        f"--metrics-address={settings.host}",
        f"--metrics-port={settings.triton_metrics_port}",
        f"--backend-config=python,shm-region-prefix-name={region_prefix(settings)}",
        f"--backend-config=fil,shm-region-prefix-name={region_prefix(settings)}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
        "--model-control-mode=explicit",
        "--exit-timeout-secs=5",
    ]
    if (settings.models / MODEL_NAME / "config.pbtxt").exists():
        command.append(f"--load-model={MODEL_NAME}")
    return tuple(command)


def _environment(settings: Settings) -> dict[str, str]:
    folder = settings.tools / "triton"
    libraries = [str(_site(settings) / "nvidia_pytriton.libs")]
    own = libpython_folder()
    if own is not None:
        libraries.append(str(own))
    return {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "VIRTUAL_ENV": str(folder),
        "LD_LIBRARY_PATH": ":".join(libraries),
        "FIL_COMPILED": str(_compiled(settings)),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
