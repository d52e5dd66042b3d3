"""Where the artifacts of tracked runs lie, for the server that serves them and for runs without."""

import os
import re
from pathlib import Path

from stages.core.artifacts import data_root

SQLITE_FILE = re.compile(r"sqlite(?:\+\w+)?:///(.+?)(?:\?.*)?")


def artifact_root(database: str) -> str:
    """Folder or URL of the artifacts that belong to a tracking database: as the user says, else
    beside an SQLite file, else below the data root."""
    if given := os.environ.get("MLFLOW_ARTIFACTS_DESTINATION"):
        return given.rstrip("/")
    file = SQLITE_FILE.fullmatch(database)
    folder = Path(file[1]).resolve().parent if file else data_root() / "mlflow"
    return str(folder / "artifacts")
