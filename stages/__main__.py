"""A stage's own process: ``python -m stages OUT_DIR`` with the specification in OUT_DIR/spec.json.

Started by ``stages.core.launch``; under torchrun there is one such process a rank, and rank 0
writes the result. Ends with code 2 after one ``::error`` line where only the user can help.
"""

import importlib
import json
import logging
import os
import shutil
import sys
import time
import traceback
import warnings
from pathlib import Path

from pydantic import BaseModel

from stages.core import config as schema
from stages.core import contracts, tracking
from stages.core.artifacts import CHECKPOINTS, StageResult, data_root, folder_files, write_result
from stages.core.errors import StageCrashedError, UserError
from stages.core.launch import OUT_OF_MEMORY_LINE, SPEC_FILE
from stages.core.process import end_well, is_disk_full, refuse

MIN_FREE_BYTES = 200 * 2**20


def main(out_dir: Path) -> int:
    """Run the stage specified in ``out_dir`` and return the process's exit code."""
    end_well()  # so that a cancelled stage still ends its tracking run as killed
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        _run(out_dir)
    except UserError as error:
        return refuse(str(error))
    except StageCrashedError as error:
        print(error, flush=True)
        return 1
    except Exception as error:
        if is_disk_full(error):
            return refuse(f"no space left on the disk of {out_dir}; free some and run again")
        traceback.print_exc()
        if _is_out_of_memory(error):
            print(OUT_OF_MEMORY_LINE, flush=True)
        return 1
    return 0


def _run(out_dir: Path) -> None:
    spec = json.loads((out_dir / SPEC_FILE).read_text(encoding="utf-8"))
    name = spec["stage"]
    config_class, inputs_class = _models(name)
    config = config_class.model_validate(spec["config"])
    inputs = inputs_class.model_validate(spec["inputs"])
    compute = schema.Compute.model_validate(spec["compute"])
    free = shutil.disk_usage(out_dir).free
    if free < MIN_FREE_BYTES:
        raise UserError(
            f"only {free // 2**20} MiB free on the disk of {data_root()}, "
            f"need {MIN_FREE_BYTES // 2**20}; free some or set RLHF_DATA_ROOT to another disk"
        )
    is_main = int(os.environ.get("RANK", "0")) == 0
    # Out of the way while the folder is uploaded, and there again should that fail.
    checkpoints, aside = out_dir / CHECKPOINTS, out_dir.with_suffix(".checkpoints")
    if is_main and aside.exists():
        aside.rename(checkpoints)
    started = time.monotonic()
    with tracking.stage_run(name, out_dir.name, config, inputs, enabled=is_main) as run_id:
        outputs, metrics = importlib.import_module(f"stages.{config.module or name}").run(
            config, inputs, compute, out_dir
        )
        if not is_main:
            return
        if checkpoints.exists():
            checkpoints.rename(aside)
        seconds = time.monotonic() - started
        result = StageResult(
            stage=name,
            key=out_dir.name,
            outputs=outputs.model_dump(mode="json"),
            metrics=metrics,
            files=folder_files(out_dir),
            tracking_run_id=run_id,
            git_commit=tracking.git_commit(),
            seconds=round(seconds, 1),
        )
        tracking.log_result(out_dir, result)
        write_result(out_dir, result)
        shutil.rmtree(aside, ignore_errors=True)


def _models(stage: str) -> tuple[type[BaseModel], type[BaseModel]]:
    """The configuration and inputs classes of a stage, found by its name."""
    config_class = next(
        item
        for item in vars(schema).values()
        if isinstance(item, type) and issubclass(item, schema.StageConfig) and item.stage == stage
    )
    return config_class, getattr(contracts, config_class.__name__.removesuffix("Config") + "Inputs")


def _is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU or of the machine; torch's error on the CPU is a plain RuntimeError."""
    signs = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
