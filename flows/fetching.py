"""The task that fetches remote sources before collect: in a process of its own, since the
libraries that fetch are heavy."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import progress
from flows.environment import STAGE_ENVIRONMENT
from flows.places import DATA_KINDS
from flows.refusals import refused
from flows.stage_task import RETRY_DELAYS_SECONDS, is_crash, listeners
from stages.core.artifacts import write_atomically
from stages.core.config import CollectConfig, Compute, PipelineConfig
from stages.core.contracts import CollectInputs
from stages.core.errors import UserError
from stages.core.fetch import cache_folder
from stages.core.launch import SPEC_FILE, run_process

NAME = "fetch"


def is_needed(config: PipelineConfig) -> bool:
    """Whether collect has a source that is not on the disk."""
    return any(getattr(config.collect, kind).remote for kind in DATA_KINDS)


@task(
    name=NAME,
    task_run_name=NAME,
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=is_crash,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch(config: CollectConfig, compute: Compute) -> Any:
    """The files of all remote sources by the kind of data, for collect to read. What has not
    changed since an earlier run is not fetched again.

    Raises:
        UserError: a source cannot be fetched, or answers something that is no data.
        StageCrashedError: the process ended without a result.
    """
    reporter = progress.current()
    began = time.monotonic()
    state, figures = "failed", dict[str, float]()
    try:
        reporter.start(NAME)
        inputs = _run(config, compute)
        state, figures = "done", _figures(inputs)
        return inputs
    except UserError as error:
        return refused(error)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a cancelled run
        state = "interrupted"
        raise
    finally:
        reporter.end(NAME, state, time.monotonic() - began, figures)


# ------------------------------------------------------------------------------------ helpers


def _run(config: CollectConfig, compute: Compute) -> CollectInputs:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    on_line, on_progress = listeners(NAME)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=cache) as name:
        folder = Path(name)
        spec = {"config": config.model_dump(mode="json"), "folder": str(Path.cwd())}
        write_atomically(folder / SPEC_FILE, json.dumps(spec))
        command = [sys.executable, "-m", "stages.core.fetch", str(folder)]
        with (cache / "fetch.log").open("a", encoding="utf-8") as log:
            run_process(NAME, command, compute, log, on_line, on_progress, STAGE_ENVIRONMENT)
        text = (folder / "inputs.json").read_text(encoding="utf-8")
    return CollectInputs.model_validate_json(text)


def _figures(inputs: CollectInputs) -> dict[str, float]:
    files = [artifact.locate() for kind in DATA_KINDS for artifact in getattr(inputs, kind)]
    size = sum(file.stat().st_size for file in files)
    return {"files": float(len(files)), "size_mb": round(size / 1e6, 1)}
