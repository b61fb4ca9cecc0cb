"""What MLflow keeps of a training: parameters, quality beside the baselines, the model, its versions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contracts.errors import ServiceError
from contracts.features import RANKED
from contracts.release import MODEL_NAME
from contracts.settings import Settings

if TYPE_CHECKING:
    import lightgbm
    from mlflow import MlflowClient

EXPERIMENT = "nextclick-ranker"
CANDIDATE = "candidate"
CHAMPION = "champion"
TIMEOUT_SECONDS = 20
RETRIES = 2


@dataclass(frozen=True)
class Tracked:
    """A run of MLflow and the version of the model that it registered."""

    run: str
    version: int


def require_mlflow(settings: Settings) -> None:
    """ServiceError unless MLflow answers: asked before the work, not after it."""
    with _client(settings) as client:
        client.search_experiments(max_results=1)


def track(
    settings: Settings,
    booster: lightgbm.Booster,
    parameters: Mapping[str, Any],
    figures: Mapping[str, float],
    documents: Mapping[str, Any],
) -> Tracked:
    """A finished run, its model registered under `MODEL_NAME` with the alias `candidate`.

    figures: metrics; documents: file name to what it holds, as JSON.
    """
    import mlflow

    with _client(settings) as client:
        mlflow.set_experiment(EXPERIMENT)
        with mlflow.start_run() as run:
            mlflow.log_params(dict(parameters))
            mlflow.log_metrics(dict(figures))
            for name, document in documents.items():
                mlflow.log_dict(document, name)
            logged = _log_model(booster)
        tracked = Tracked(run.info.run_id, _register(client, run.info.run_id, logged))
        client.set_registered_model_alias(MODEL_NAME, CANDIDATE, str(tracked.version))
        return tracked


def log_run(
    settings: Settings,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    figures: Mapping[str, float],
    documents: Mapping[str, Any],
    children: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]] = (),
) -> str:
    """A finished run without a model, and its id: in MLflow where it answers, else in the file of the
    embedded one, which shows it once it is up. children: parameters and metrics of nested runs."""
    import mlflow

    with _client(settings, embedded=not _answers(settings)):
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_params({key: str(value)[:500] for key, value in parameters.items()})
            mlflow.log_metrics(dict(figures))
            for file, document in documents.items():
                mlflow.log_dict(document, file)
            for number, (given, reached) in enumerate(children):
                with mlflow.start_run(run_name=f"{name} {number}", nested=True):
                    mlflow.log_params({key: str(value) for key, value in given.items()})
                    mlflow.log_metrics(dict(reached))
            return str(run.info.run_id)


def _answers(settings: Settings) -> bool:
    import httpx

    try:
        return httpx.get(f"{settings.mlflow}/health", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def promote(settings: Settings, tracked: Tracked, parity: float) -> None:
    """The version passed the gate: write by how much, and call it the champion."""
    with _client(settings) as client:
        client.log_metric(tracked.run, "parity", parity)
        client.set_registered_model_alias(MODEL_NAME, CHAMPION, str(tracked.version))


def refuse(settings: Settings, tracked: Tracked, reason: str) -> None:
    """The version did not pass: say so where it is listed."""
    with _client(settings) as client:
        client.set_model_version_tag(MODEL_NAME, str(tracked.version), "refused", reason[:500])


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested dictionaries, keys joined by dots: MLflow's metrics."""
    found: dict[str, float] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{key}"] = float(value)
    return found


def _register(client: MlflowClient, run: str, logged: Any) -> int:
    """The new version of the registered model. (`mlflow.register_model` talks on stderr.)"""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.create_model_version(
        MODEL_NAME,
        source=logged.model_uri,
        run_id=run,
        model_id=logged.model_id,
        await_creation_for=TIMEOUT_SECONDS,
    )
    return int(found.version)


def _log_model(booster: lightgbm.Booster) -> Any:
    """LightGBM's own text format, no pickle. Requirements are named: else MLflow would start a
    process and load the model only to find them out."""
    import lightgbm
    import mlflow.lightgbm
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = Schema([ColSpec("float", name) for name in RANKED])
    return mlflow.lightgbm.log_model(
        booster,
        name=MODEL_NAME,
        signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec("double", "score")])),
        pip_requirements=[f"lightgbm=={lightgbm.__version__}"],
    )


@contextmanager
def _client(settings: Settings, *, embedded: bool = False) -> Iterator[MlflowClient]:
    """A client with time limits, for the address in the settings and no other. embedded: for the file
    of the embedded server, which need not be up.

    What MLflow warns of as it is imported and used (its own type hints, its own defaults) is for
    its developers, not for our reader.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        try:
            yield _connect(_file(settings) if embedded else settings.mlflow)
        except (MlflowException, RequestException) as error:
            reason = str(error).splitlines()[0][:300]
            raise ServiceError(
                f"MLflow at {settings.mlflow}: {reason}; is it up? (./nextclick status,"
                " ./nextclick up)"
            ) from None


def _file(settings: Settings) -> str:
    folder = settings.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def _connect(address: str) -> MlflowClient:
    import mlflow
    from mlflow import environment_variables as variables
    from mlflow.telemetry import set_telemetry_client

    variables.MLFLOW_HTTP_REQUEST_TIMEOUT.set(TIMEOUT_SECONDS)
    variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(RETRIES)
    variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    variables.MLFLOW_DISABLE_TELEMETRY.set(True)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    set_telemetry_client()  # takes back the one that the import made
    mlflow.set_tracking_uri(address)
    return mlflow.MlflowClient(address)
