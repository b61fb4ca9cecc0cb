"""The embedded MLflow server: SQLite and an artifact folder in HOME/mlflow."""

from __future__ import annotations

import importlib.metadata
import sys

from contracts.settings import Settings
from local_stack.service import Service, http_json


def mlflow(settings: Settings) -> Service:
    folder = settings.home / "mlflow"
    host, port = settings.host, settings.mlflow_port
    return Service(
        name="mlflow",
        command=(sys.executable, "-P", "-m", "local_stack.mlflow_server"),
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",
            # MLflow 3 answers 403 to a Host header that it was not told of
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{host}:{port},localhost:{port}",
        },
        folder=folder,
        ports={"mlflow_port": port},
        url=f"http://{host}:{port}",
        version=importlib.metadata.version("mlflow"),
        probe=lambda: probe(host, port),
        start_seconds=120.0,
        hint="a database of another MLflow version needs: mlflow db upgrade sqlite:///...",
    )


def probe(host: str, port: int) -> None:
    """Ask for one experiment, which reads the database."""
    http_json(host, port, "/api/2.0/mlflow/experiments/search", {"max_results": 1})
