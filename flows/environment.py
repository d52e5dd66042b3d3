"""Environment variables that the libraries read when they are imported.

Call ``prepare`` before the first import of prefect or mlflow.
"""

import os
from pathlib import Path

from stages.core.artifacts import data_root

CHECKOUT = Path(__file__).resolve().parents[1]

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "TRL_DISABLE_TELEMETRY": "1",
}

STAGE_ENVIRONMENT = {
    **NO_TELEMETRY,
    # The trainers' worker processes are forks; the tokenizer's threads do not survive a fork.
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def prefect_folder() -> Path:
    """Prefect's home: its database, the copied UI, results and the servers' logs."""
    return Path(os.environ.get("PREFECT_HOME") or data_root() / "prefect")


def mlflow_folder() -> Path:
    """The MLflow database, the artifacts and the log of the UI's server."""
    return data_root() / "mlflow"


def prepare() -> None:
    """Keep all state below the data root, all libraries silent on the terminal and at home.

    What the user has set already is left alone, telemetry excepted.
    """
    os.environ.update(NO_TELEMETRY)
    quiet = {
        "PREFECT_HOME": str(prefect_folder()),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # A heartbeat automation ends healthy runs at the default of 180 s.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "HF_HOME": str(data_root() / "cache" / "huggingface"),
        "MPLCONFIGDIR": str(data_root() / "cache" / "matplotlib"),
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    prefect_folder().mkdir(parents=True, exist_ok=True)
    mlflow_folder().mkdir(parents=True, exist_ok=True)
