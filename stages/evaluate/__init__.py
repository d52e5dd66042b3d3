"""Base, SFT model and policy side by side on held-out data; writes the report card."""

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.chat import prompt_text
from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import EvaluateInputs, EvaluateOutputs
from stages.core.errors import UserError
from stages.core.models import load_tokenizer, pick_device
from stages.core.scorer_places import check_scorer_name
from stages.core.scorers import load_scorer
from stages.core.scoring import Scorer
from stages.evaluate import plots
from stages.evaluate.comparison import (
    MODELS,
    REWARD_MODEL,
    Figures,
    Measurements,
    compare,
    flat_metrics,
    reply_rows,
)
from stages.evaluate.measure import measure
from stages.evaluate.report import write_report

FIGURE_NAMES = frozenset(
    ("score", "score_normalized", "kl", "length", "eos_rate", "distinct_1", "distinct_2",
     "bits_per_byte", "sft_loss", "length_baseline", "win_rate", REWARD_MODEL)
)  # fmt: skip
"""Metrics begin with these or with a scorer's name, which must therefore differ."""


def run(
    config: EvaluateConfig, inputs: EvaluateInputs, compute: Compute, out_dir: Path
) -> tuple[EvaluateOutputs, dict[str, float]]:
    """Measure the three models, write ``report/`` and return every figure under a flat name.

    Raises:
        UserError: no held-out prompts, tokenizers that differ, a scorer that fails, a reward model
            that does not fit the SFT model.
    """
    scorers = load_scorers(config, inputs, compute)
    measured = measure(config, inputs, compute, scorers)
    figures = compare(
        measured, num_bootstrap_samples=config.num_bootstrap_samples, seed=config.seed
    )
    metrics = flat_metrics(measured, figures)
    folder = out_dir / "report"
    _write(folder, config, measured, figures, metrics)
    return EvaluateOutputs(report=make_artifact("report", folder)), metrics


def load_scorers(
    config: EvaluateConfig, inputs: EvaluateInputs, compute: Compute
) -> dict[str, Scorer]:
    """The scorers beside the reward model, by name: before any of the models that they judge is
    loaded, so that a mistake shows at once.

    Raises:
        UserError: a name that metrics cannot carry, or a scorer that cannot be loaded.
    """
    device, tokenizer = pick_device(compute), load_tokenizer(inputs.sft.locate())
    scorers: dict[str, Scorer] = {}
    for name, place in config.scorers.items():
        setting = f"evaluate.scorers.{name}"
        check_scorer_name(setting, name)
        if name in FIGURE_NAMES:
            taken = ", ".join(sorted(FIGURE_NAMES))
            raise UserError(f"{setting}: choose another name, none of {taken}")
        path = inputs.scorers[name].locate()
        scorers[name] = load_scorer(place, path, device, tokenizer=tokenizer, normalize=True)
    return scorers


def _write(
    folder: Path,
    config: EvaluateConfig,
    measured: Measurements,
    figures: Figures,
    metrics: Mapping[str, float],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while writing
    folder.mkdir(parents=True)
    for name, figure in plots.draw(measured, figures):
        tracking.log_figure(figure, name, folder)
    rows = reply_rows(measured, [prompt_text(prompt) for prompt in measured.prompts])
    count = min(config.num_samples_shown, len(rows))
    shown = sorted(random.Random(config.seed).sample(range(len(rows)), count))
    tracking.log_table([_flat_row(rows[index]) for index in shown], "samples")
    with (folder / "replies.jsonl").open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    write_report(folder, config, measured, figures, shown)


def _flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the tracked samples table: the prompt, then reply, scores and KL a model."""
    flat = {"prompt": row["prompt"]}
    for name in MODELS:
        reply = row[name]
        flat[name] = reply["reply"]
        flat |= {f"{scorer}_{name}": round(value, 3) for scorer, value in reply["scores"].items()}
        flat[f"kl_{name}"] = round(reply["kl"], 3)
    return flat
