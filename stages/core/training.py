"""What the supervised training stages share around transformers' Trainer."""

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS
from stages.core.config import Compute, TrainingConfig
from stages.core.errors import UserError
from stages.core.models import pick_device, supports_bf16

PROGRESS_INTERVAL_SECONDS = 0.5


def trainer_settings(config: TrainingConfig, compute: Compute, out_dir: Path) -> dict[str, Any]:
    """Keyword arguments for ``TrainingArguments`` or one of its subclasses.

    Raises:
        UserError: the global batch does not divide among the ranks.
    """
    device = pick_device(compute)
    micro_batch_size = micro_batch(config.global_batch_size, compute)
    ranks = compute.num_processes
    return {
        "output_dir": str(out_dir / CHECKPOINTS),
        "per_device_train_batch_size": micro_batch_size,
        "per_device_eval_batch_size": compute.micro_batch_size,
        "gradient_accumulation_steps": config.global_batch_size // (micro_batch_size * ranks),
        "num_train_epochs": config.num_epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup_share,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "adam_beta2": 0.95,
        "eval_strategy": "steps",
        "eval_steps": config.eval_steps,
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # else a loss that is no number never shows in the logs
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": supports_bf16(device),
        "use_cpu": device.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "gradient_checkpointing": False,
    }


def micro_batch(global_batch_size: int, compute: Compute) -> int:
    """The largest micro batch within ``compute.micro_batch_size`` that divides a rank's share of
    the global batch.

    Raises:
        UserError: the global batch does not divide among the ranks.
    """
    share, rest = divmod(global_batch_size, compute.num_processes)
    if rest:
        raise UserError(
            f"global_batch_size ({global_batch_size}) is not divisible by compute.num_processes "
            f"({compute.num_processes}); change one of them"
        )
    return max(
        size for size in range(1, min(share, compute.micro_batch_size) + 1) if share % size == 0
    )


def train(trainer: Trainer, out_dir: Path) -> None:
    """Train to the end, from the last complete checkpoint where there is one.

    Raises:
        UserError: the loss is no longer a number.
    """
    folder = out_dir / CHECKPOINTS
    checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    while checkpoint and not _is_complete(Path(checkpoint)):
        Path(checkpoint).rename(folder / f"incomplete-{Path(checkpoint).name}-{time.time_ns()}")
        checkpoint = get_last_checkpoint(str(folder))
    if checkpoint:
        print(f"continuing from {Path(checkpoint).name}", flush=True)
    trainer.remove_callback(PrinterCallback)  # ours prints lines instead of dictionaries
    trainer.add_callback(ForwardMetrics())
    trainer.train(resume_from_checkpoint=checkpoint)


def _is_complete(checkpoint: Path) -> bool:
    """The state is the last file of a checkpoint: without a whole one, the writer was killed."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def stop_early(config: TrainingConfig, patience: int) -> tuple[dict[str, Any], list[Any]]:
    """Settings and callbacks that keep the model with the best held-out loss.

    Raises:
        UserError: a checkpoint would not fall on each evaluation.
    """
    if not patience:
        return {}, []
    if config.save_steps % config.eval_steps:
        raise UserError(
            f"{config.stage}.save_steps ({config.save_steps}) must be a multiple of "
            f"{config.stage}.eval_steps ({config.eval_steps})"
        )
    settings = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        # A continued run counts on: else it would stop later than the straight one.
        "restore_callback_states_from_checkpoint": True,
    }
    return settings, [EarlyStoppingCallback(early_stopping_patience=patience)]


class ForwardMetrics(TrainerCallback):
    """Hands the Trainer's figures to tracking and its progress to the flow."""

    def __init__(self) -> None:
        self._last_report = 0.0
        self._shown: dict[str, float] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        figures = {
            _metric_name(name): float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        loss = figures.get("train_loss", figures.get("train_mean_loss", 0.0))
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {loss} at step {state.global_step}; lower learning_rate"
            )
        if not state.is_world_process_zero or not figures:
            return
        tracking.log_metrics(figures, state.global_step)
        print(_line(state.global_step, figures), flush=True)
        for name in ("train_loss", "eval_loss", "eval_accuracy"):
            if name in figures:
                self._shown[name.removeprefix("train_")] = round(figures[name], 3)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.monotonic()
        is_last = state.global_step >= state.max_steps
        if is_last or now - self._last_report > PROGRESS_INTERVAL_SECONDS:
            self._last_report = now
            tracking.report_progress(state.global_step, state.max_steps, **self._shown)


def _metric_name(name: str) -> str:
    """The Trainer's name with ``train_`` or ``eval_`` before it. Its ``train_loss`` is the mean
    over all steps, logged once at the end."""
    if name.startswith("eval_"):
        return name
    return "train_mean_loss" if name == "train_loss" else f"train_{name.removeprefix('train_')}"


def _line(step: int, figures: dict[str, float]) -> str:
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    return f"step {step}  {shown}"
