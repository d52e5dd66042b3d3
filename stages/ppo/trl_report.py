"""What a user sees of a run of TRL's trainers: the same as of PPO."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.core import tracking
from stages.core.config import PPOConfig
from stages.core.errors import UserError
from stages.ppo import report


def num_updates(config: PPOConfig) -> int:
    """Updates of a whole run."""
    return config.total_episodes // config.batch_size


def steps_per_update(config: PPOConfig) -> int:
    """Optimizer steps on one batch of replies, or of pairs."""
    return config.num_mini_batches * (1 if config.algorithm == "dpo" else config.num_ppo_epochs)


class Update(NamedTuple):
    """What is known of an update once it is done."""

    number: int
    episodes: int
    figures: dict[str, float]
    """All that TRL logs, and some of it under PPO's names."""


def finished_updates(config: PPOConfig, logs: Sequence[dict[str, Any]]) -> list[Update]:
    """The updates in a Trainer's log, which also holds its summary at the end."""
    updates = []
    for log in logs:
        if "loss" not in log:
            continue
        number = log["step"] // steps_per_update(config)
        figures = {
            name: float(value)
            for name, value in log.items()
            if value is not None and name != "step"
        }
        if "kl" in figures:  # a mean over the tokens
            figures["objective/kl"] = figures["kl"] * figures["completions/mean_length"]
            figures["objective/entropy"] = figures["entropy"]
            figures["val/completion_length"] = figures["completions/mean_length"]
        updates.append(Update(number, number * config.batch_size, figures))
    return updates


class Report(TrainerCallback):
    """Tells the terminal, the flow and tracking about each update."""

    def __init__(self, config: PPOConfig) -> None:
        self.config = config
        self.started = 0.0
        self.step_before = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started, self.step_before = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            before = finished_updates(self.config, state.log_history)
            tracking.restart_metrics([(update.episodes, update.figures) for update in before])

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number, episodes, figures in finished_updates(self.config, state.log_history[-1:]):
            for name in ("loss", "grad_norm"):
                if not math.isfinite(figures[name]):
                    raise UserError(
                        f"the {name} became {figures[name]} at update {number}; lower "
                        "ppo.learning_rate"
                    )
            if not state.is_world_process_zero:
                return
            tracking.log_metrics(figures, episodes)
            seconds = (time.monotonic() - self.started) / (state.global_step - self.step_before)
            self._show(number, episodes, figures, seconds * (state.max_steps - state.global_step))

    def _show(
        self, number: int, episodes: int, figures: dict[str, float], seconds_left: float
    ) -> None:
        total = num_updates(self.config)
        if self.config.algorithm == "dpo":
            margin, accuracy = figures["rewards/margins"], figures["rewards/accuracies"]
            shown = {"margin": round(margin, 3), "accuracy": round(accuracy, 2)}
            line = (
                f"update {number}/{total}  episodes {episodes}  loss {figures['loss']:.4f}  "
                f"margin {margin:.3f}  accuracy {accuracy:.2f}"
            )
        else:
            row = report.history_row(number, episodes, figures)
            shown = {name: round(row[name], 2) for name in ("score", "kl")}
            line = report.line(row, total, seconds_left)
        tracking.report_progress(number, total, **shown)
        print(line, flush=True)
