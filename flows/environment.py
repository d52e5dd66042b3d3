"""Environment variables that the libraries read when they are imported.

Call ``prepare`` before the first import of prefect or mlflow.
"""

import os
import shutil
import subprocess
from pathlib import Path

from stages.core.artifacts import data_root
from stages.core.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1]
OWN_TAG = "rlhf-flows"
"""On our deployments, and so on their runs, and on the runs of ``rlhf run``: others may share the
Prefect server, and their runs are not ours to judge."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",  # Prefect's client
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # its list of other people's models comes from GitHub
    "HF_HUB_DISABLE_TELEMETRY": "1",  # also what transformers and TRL send
    "HF_UPDATE_DOWNLOAD_COUNTS": "false",  # of hub data sets
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # asks a service to convert the model that is loaded
}

SAFETY = {
    # A model with pickled code in it runs that code when it is loaded.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}

LEASE_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
"""By default in memory: a restarted server knows no lease, and Prefect ends each run that holds a
place of a limited deployment when it next renews its lease, minutes later."""

STAGE_ENVIRONMENT = {
    **NO_TELEMETRY,
    **SAFETY,
    # The trainers' worker processes are forks; the tokenizer's threads do not survive a fork.
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
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

    What the user has set already is left alone, telemetry and pickled models excepted.

    Raises:
        UserError: the folders below the data root cannot be made.
    """
    os.environ.update({**NO_TELEMETRY, **SAFETY})
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        # What the servers started here ask for is what their clients, our children too, answer.
        if not os.environ.get("PREFECT_API_URL"):
            os.environ["PREFECT_API_AUTH_STRING"] = password
    else:
        os.environ.pop("PREFECT_SERVER_API_AUTH_STRING", None)  # empty, it would shut everyone out
    quiet = {
        "PREFECT_HOME": str(prefect_folder()),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # Half an hour of patience with a server that is away, as with MLflow's.
        "PREFECT_CLIENT_MAX_RETRIES": "10",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASE_STORAGE,
        # A heartbeat automation ends healthy runs at the default of 180 s.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "HF_HOME": str(data_root() / "cache" / "huggingface"),
        "MPLCONFIGDIR": str(data_root() / "cache" / "matplotlib"),
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for folder in (prefect_folder(), mlflow_folder()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: {error.strerror}; correct the permissions, or set RLHF_DATA_ROOT"
            ) from None


def has_gpu_driver() -> bool:
    """Whether an NVIDIA driver is loaded; torch, which may still not match it, is not asked."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    program = shutil.which("nvidia-smi")  # Windows and WSL have no /proc/driver
    if program is None:
        return False
    try:
        return subprocess.run([program, "-L"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
