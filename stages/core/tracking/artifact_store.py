"""Where artifacts lie when runs are tracked in a database, without a server in between.

Experiments name their artifacts as an MLflow server does (``mlflow-artifacts:/``), never by a
folder, which would be another one on each machine. A server that is started on the database later,
or was before, keeps them in the same place.
"""

from typing import Any

from stages.core.artifact_root import artifact_root

LOCATION = "mlflow-artifacts:/"


def choose_way(tracking_uri: str) -> None:
    """Let this process reach artifacts through the server that tracks its runs or, where there is
    none, itself, which mlflow does not do by itself for such a location."""
    from mlflow.store.artifact import artifact_repository_registry as registry

    def directly(artifact_uri: str, **options: Any) -> Any:
        path = artifact_uri.removeprefix(LOCATION).lstrip("/")
        return registry.get_artifact_repository(f"{artifact_root(tracking_uri)}/{path}", **options)

    is_served = tracking_uri.startswith("http")
    way = registry.MlflowArtifactsRepository if is_served else directly
    registry.get_registered_artifact_repositories()["mlflow-artifacts"] = way
