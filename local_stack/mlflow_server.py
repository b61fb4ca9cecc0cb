"""MLflow's tracking server in one process: `python -m local_stack.mlflow_server`.

`mlflow server` imports MLflow twice, in the command and in the server that it starts, and keeps
both: twice the memory and twice the start. This is the same application, set up the same way.
"""

from __future__ import annotations

import os

from contracts.settings import Settings


def main() -> None:
    settings = Settings.from_environment()
    import uvicorn
    from mlflow.server import constants
    from mlflow.server.handlers import initialize_backend_stores

    folder = settings.home / "mlflow"
    database, artifacts = f"sqlite:///{folder / 'mlflow.db'}", "mlflow-artifacts:/"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: artifacts,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    initialize_backend_stores(database, database, artifacts)
    from mlflow.server.fastapi_app import app  # reads the variables as it is imported

    uvicorn.run(app, host=settings.host, port=settings.mlflow_port, access_log=False)


if __name__ == "__main__":
    main()
