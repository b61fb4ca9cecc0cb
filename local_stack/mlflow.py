"""The embedded MLflow server: SQLite and an artifact folder in HOME/mlflow."""

from __future__ import annotations

import importlib.metadata

from contracts.settings import Settings
from local_stack.service import BIN, Service, http_call


def mlflow(settings: Settings) -> Service:
    folder = settings.home / "mlflow"
    host, port = settings.host, settings.mlflow_port
    return Service(
        name="mlflow",
        command=(
            str(BIN / "mlflow"),
            "server",
            f"--host={host}",
            f"--port={port}",
            "--workers=1",
            f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}",
            "--serve-artifacts",
            f"--artifacts-destination={folder / 'artifacts'}",
            # MLflow 3 answers 403 to a Host header that it was not told of
            f"--allowed-hosts={host}:{port},localhost:{port}",
        ),
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",
        },
        folder=folder,
        ports={"mlflow_port": port},
        url=f"http://{host}:{port}",
        version=importlib.metadata.version("mlflow"),
        probe=lambda: _probe(host, port),
        start_seconds=120.0,
        hint="a database of another MLflow version needs: mlflow db upgrade sqlite:///...",
    )


def _probe(host: str, port: int) -> None:
    http_call(host, port, "/health")
