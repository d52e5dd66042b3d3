"""By what machines are told apart when the process of a run is looked for."""

import platform
import secrets

from filelock import FileLock

from stages.core.artifacts import data_root, write_atomically


def machine() -> str:
    """Host name, and a number that lies in the data root: two hosts may have one name, and after a
    restart or in a new container both are what they were."""
    path = data_root() / "runs" / "machine_id"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            write_atomically(path, secrets.token_hex(4))
    return f"{platform.node()}-{path.read_text(encoding='utf-8')}"
