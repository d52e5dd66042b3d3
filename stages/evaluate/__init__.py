"""Base, SFT model, policy and champion side by side on held-out data; writes the report card."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.chat import prompt_text
from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import EvaluateInputs, EvaluateOutputs
from stages.core.models import load_tokenizer, pick_device
from stages.core.policy_gate import COMPARED
from stages.core.scorer_places import check_judging_scorer_name
from stages.core.scorers import load_scorer
from stages.core.scoring import Scorer
from stages.evaluate import plots
from stages.evaluate.attempts import attempt
from stages.evaluate.comparison import compare
from stages.evaluate.earlier import Benchmark, Card, read_benchmarks, read_card
from stages.evaluate.lineage import trace
from stages.evaluate.measure import measure
from stages.evaluate.measurements import (
    CHAMPION,
    Measurements,
    Missing,
)
from stages.evaluate.metrics import flat_metrics, reply_rows
from stages.evaluate.report import CARD_PLOT, Report, write_report


def run(
    config: EvaluateConfig, inputs: EvaluateInputs, compute: Compute, out_dir: Path
) -> tuple[EvaluateOutputs, dict[str, float]]:
    """Measure the models, write ``report/`` and return every figure under a flat name.

    Raises:
        UserError: no held-out prompts, tokenizers that differ, a scorer that fails, a reward model
            that does not fit the SFT model.
    """
    scorers = load_scorers(config, inputs, compute)
    missing: list[Missing] = []
    card = _card(inputs, missing)
    benchmarks = _benchmarks(inputs, missing)
    measured = measure(config, inputs, compute, scorers, out_dir, missing)
    figures = compare(
        measured, num_bootstrap_samples=config.num_bootstrap_samples, seed=config.seed
    )
    metrics = flat_metrics(measured, figures, card, benchmarks)
    champion = inputs.champion if config.compare_champion else None
    if champion and champion.digest != inputs.policy.digest:
        metrics[COMPARED] = float(CHAMPION in measured.replies)
    folder = out_dir / "report"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while writing
    folder.mkdir(parents=True)
    for name, figure in plots.draw(measured, figures, benchmarks):
        tracking.log_figure(figure, name, folder)
    _copy_card_plots(inputs, card, folder)
    samples = _write_replies(config, measured, folder)
    text = json.dumps(metrics, indent=2, sort_keys=True)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    report = Report(
        config=config,
        measured=measured,
        figures=figures,
        metrics=metrics,
        lineage=trace(inputs.model_copy(update={"champion": None})),  # no cost of this run
        card=card,
        benchmarks=benchmarks,
        samples=samples,
        plots=frozenset(path.stem for path in (folder / "plots").glob("*.png")),
    )
    write_report(folder, report)
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
        check_judging_scorer_name(setting, name)
        path = inputs.scorers[name].locate()
        scorers[name] = load_scorer(place, path, device, tokenizer=tokenizer, normalize=True)
    return scorers


# ------------------------------------------------------------------------------------ helpers


def _card(inputs: EvaluateInputs, missing: list[Missing]) -> Card | None:
    artifact = inputs.reward_model_card
    if artifact is None:
        reason = "the run has no stage reward_model_card"
        missing.append(Missing("the reward model's accuracy", reason))
        return None
    return attempt("the reward model's card", lambda: read_card(artifact), missing)


def _benchmarks(inputs: EvaluateInputs, missing: list[Missing]) -> list[Benchmark]:
    artifact = inputs.benchmarks
    if artifact is None:
        missing.append(Missing("benchmarks", "benchmarks.suites names none"))
        return []
    rows = attempt("benchmarks", lambda: read_benchmarks(artifact), missing) or []
    if rows and not any(row.values for row in rows):
        reason = f"{rows[0].problem or 'none has a figure'}; rlhf run --from benchmarks tries again"
        missing.append(Missing("benchmarks", reason, failed=True))
        return []
    return rows


def _copy_card_plots(inputs: EvaluateInputs, card: Card | None, folder: Path) -> None:
    if card is None or inputs.reward_model_card is None:
        return
    for plot in card.plots:
        path = inputs.reward_model_card.locate() / "plots" / f"{plot.name}.png"
        if path.is_file():
            shutil.copyfile(path, folder / "plots" / f"{CARD_PLOT}{plot.name}.png")


def _write_replies(config: EvaluateConfig, measured: Measurements, folder: Path) -> list[int]:
    """All replies to ``replies.jsonl``, some of them to the tracked samples table; returns which of
    the prompts."""
    rows = reply_rows(measured, [prompt_text(prompt) for prompt in measured.prompts])
    count = min(config.num_samples_shown, len(rows))
    shown = sorted(random.Random(config.seed).sample(range(len(rows)), count))
    tracking.log_table([_flat_row(rows[index]) for index in shown], "samples")
    with (folder / "replies.jsonl").open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return shown


def _flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """One row of the tracked samples table: the prompt, then reply, scores and KL a model."""
    flat = {"prompt": row["prompt"]}
    for name, reply in row.items():
        if name == "prompt":
            continue
        flat[name] = reply["reply"]
        flat |= {f"{scorer}_{name}": round(value, 3) for scorer, value in reply["scores"].items()}
        flat[f"kl_{name}"] = round(reply["kl"], 3)
    return flat
