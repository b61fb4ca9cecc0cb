"""Every setting, with its default and meaning. The only module that reads the environment.

A setting `redis` is read from the variable `NEXTCLICK_REDIS`. The defaults name the embedded
stack: local processes on loopback, all state in one folder. `docs/settings.md` is generated from
this module.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from contracts.errors import UsageError

PREFIX = "NEXTCLICK_"
ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


class Settings(BaseModel):
    """Frozen; `Settings.from_environment()` is how a program gets it."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # where things are kept
    home: Path = Field(
        ROOT / ".nextclick",
        description="State folder of the embedded stack: logs, Redis, Kafka, lake, releases. Delete it to begin anew.",
    )
    tools: Path = Field(
        ROOT / ".tools",
        description="What the launcher brought: the two environments, Java, Kafka's jars.",
    )
    lake: str = Field("", description="Event lake, a folder or s3a:// address; empty: HOME/lake.")
    offline: str = Field(
        "",
        description="Offline feature tables (Parquet), a folder or s3:// address; empty: HOME/offline.",
    )
    releases: Path = Field(
        Path(), description="Release manifests and what belongs to them; empty: HOME/releases."
    )
    indexes: Path = Field(Path(), description="Candidate indexes by version; empty: HOME/indexes.")
    rules: Path = Field(
        Path(),
        description="Business rules of the next release (docs/rules.md), a JSON file; empty: those of the live release.",
    )
    models: Path = Field(ROOT / "triton_models", description="Triton's model repository.")

    # the embedded stack's own ports
    host: str = Field("127.0.0.1", description="Address that the embedded services bind to.")
    redis_port: int = Field(16379, ge=1, le=65535, description="Port of the embedded Redis.")
    kafka_port: int = Field(19092, ge=1, le=65535, description="Port of the embedded Kafka broker.")
    kafka_controller_port: int = Field(
        19093, ge=1, le=65535, description="Port of the embedded Kafka's KRaft controller."
    )
    triton_http_port: int = Field(
        18000, ge=1, le=65535, description="HTTP port of the embedded Triton."
    )
    triton_grpc_port: int = Field(
        18001, ge=1, le=65535, description="gRPC port of the embedded Triton."
    )
    triton_metrics_port: int = Field(
        18002, ge=1, le=65535, description="Metrics port of the embedded Triton."
    )
    mlflow_port: int = Field(
        15000, ge=1, le=65535, description="Port of the embedded MLflow server."
    )
    api_port: int = Field(13000, ge=1, le=65535, description="Port of the recommendation service.")
    consumer_port: int = Field(
        13001, ge=1, le=65535, description="Port of the consumer's health and metrics page."
    )
    stream_port: int = Field(
        13002, ge=1, le=65535, description="Port of the stream's health and metrics page."
    )

    # the services that are called; empty: the embedded ones
    redis: str = Field(
        "",
        description="Redis as Feast's connection string, host:port[,host:port...][,option=value...]; empty: the embedded one.",
    )
    redis_type: Literal["redis", "redis_cluster"] = Field(
        "redis", description="One Redis or a Redis Cluster."
    )
    kafka: str = Field("", description="Kafka bootstrap servers; empty: the embedded broker.")
    triton: str = Field(
        "", description="Triton's gRPC address host:port; empty: the embedded server."
    )
    mlflow: str = Field("", description="MLflow tracking address; empty: the embedded server.")
    candidates: str = Field(
        "",
        description="Address of a candidate service; empty: candidates come from the API's own process.",
    )
    feast_yaml: Path = Field(
        ROOT / "feature_repo/environments/embedded.yaml",
        description="The feature_store.yaml that the product's own programs open.",
    )
    feast_project: str = Field(
        "nextclick",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Feast project, part of every key in the online store.",
    )
    feast_registry: str = Field(
        "",
        description="Feast's registry, a file or an SQL address; empty: HOME/feast/registry.db.",
    )
    redis_password: SecretStr = Field(
        SecretStr(""), description="Password of Redis, where it needs one."
    )

    # Kafka
    topic_prefix: str = Field(
        "nextclick.", pattern=r"^[a-zA-Z0-9._-]*$", description="Put before every topic name."
    )
    topic_partitions: int = Field(
        4, ge=1, le=1000, description="Partitions of a topic that is made anew."
    )
    consumer_group: str = Field(
        "nextclick-consumer", description="Consumer group of the event consumer."
    )
    consumer_batch: int = Field(
        8000, ge=1, le=100_000, description="Messages at most that the consumer takes at a time."
    )

    # the way of a request: milliseconds
    deadline_ms: int = Field(
        90,
        ge=5,
        le=10_000,
        description="Time for one answer, from the request's arrival; what is not done by then is left out and named in `degraded`.",
    )
    session_budget_ms: int = Field(
        20, ge=1, le=10_000, description="Of it, at most, for reading the session."
    )
    candidates_budget_ms: int = Field(
        25, ge=1, le=10_000, description="Of it, at most, for candidates."
    )
    features_budget_ms: int = Field(
        30, ge=1, le=10_000, description="Of it, at most, for reading item features."
    )
    ranking_budget_ms: int = Field(
        40, ge=1, le=10_000, description="Of it, at most, for the ranker."
    )
    candidate_count: int = Field(100, ge=10, le=1000, description="Candidates that are ranked.")
    max_k: int = Field(100, ge=1, le=1000, description="Largest k of a request.")
    max_request_events: int = Field(
        200,
        ge=1,
        le=100_000,
        description="Session events that one recommendation request may carry.",
    )
    max_batch_events: int = Field(
        1000, ge=1, le=100_000, description="Events that one call of /v1/events may carry."
    )
    max_body_bytes: int = Field(
        1_000_000,
        ge=1000,
        le=100_000_000,
        description="Largest body; a larger one is answered 413.",
    )
    served_sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of sessions whose served feature rows are logged, by hash of the session.",
    )

    # jobs
    spark_master: str = Field("local[2]", description="Spark master of the jobs.")
    spark_memory: str = Field(
        "2g", description="Memory of the Spark driver (local mode: of everything)."
    )
    stream: bool = Field(
        False,
        description="Run the stream of trends (windows that move in steps of 5 minutes): `nextclick up` starts it, `nextclick train` makes their history.",
    )
    stream_state: str = Field(
        "",
        description="Where the stream keeps its checkpoint, facts and buckets, a folder or s3a:// address; empty: HOME/stream.",
    )
    stream_seconds: int = Field(
        30, ge=1, le=300, description="From one look of the stream into Kafka to the next."
    )
    stream_messages: int = Field(
        200_000, ge=100, description="Messages at most of one micro-batch of the stream."
    )
    stream_memory: str = Field(
        "512m", description="Memory of the stream's Spark driver (local mode: of everything)."
    )
    drift_psi: float = Field(
        0.2, gt=0, description="Population stability index from which a column counts as drifted."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        """Fill the settings whose default follows from another one."""
        if not isinstance(values, dict):
            return values
        home = Path(values.get("home") or ROOT / ".nextclick").absolute()
        host = values.get("host") or "127.0.0.1"
        derived = {
            "home": home,
            "lake": str(home / "lake"),
            "offline": str(home / "offline"),
            "releases": home / "releases",
            "indexes": home / "indexes",
            "stream_state": str(home / "stream"),
            "redis": f"{host}:{values.get('redis_port', 16379)}",
            "kafka": f"{host}:{values.get('kafka_port', 19092)}",
            "triton": f"{host}:{values.get('triton_grpc_port', 18001)}",
            "mlflow": f"http://{host}:{values.get('mlflow_port', 15000)}",
            "feast_registry": str(home / "feast/registry.db"),
        }
        given = {name: value for name, value in values.items() if value != ""}
        return {**derived, **given, "home": home}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `NEXTCLICK_*`. UsageError names the variable, what came and what was expected."""
        environ = os.environ if environ is None else environ
        values = {}
        for variable, value in environ.items():
            if variable.startswith(PREFIX):
                name = variable.removeprefix(PREFIX).lower()
                if name not in cls.model_fields:
                    raise UsageError(_unknown(variable, [_variable(n) for n in cls.model_fields]))
                values[name] = value
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = _variable(str(first["loc"][0]))
            raise UsageError(f"{name}: got {first['input']!r}: {first['msg']}") from None

    def environment(self) -> dict[str, str]:
        """These settings as variables: for child processes and for the yaml files' ${VARS}."""
        return {_variable(name): _text(getattr(self, name)) for name in type(self).model_fields}

    @property
    def api(self) -> str:
        return f"http://{self.host}:{self.api_port}"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _unknown(variable: str, known: list[str]) -> str:
    # without the prefix, which would make any two variables alike
    names = [name.removeprefix(PREFIX) for name in known]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
    return f"{variable} is no setting{hint} (docs/settings.md lists them all)"
