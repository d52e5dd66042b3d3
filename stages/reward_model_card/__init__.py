"""Tests the reward model on held-out pairs, beside honest baselines, and writes its card."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, RewardModelCardConfig
from stages.core.contracts import RewardModelCardInputs, RewardModelCardOutputs
from stages.core.reward_model_gate import reward_model_refusals
from stages.reward_model_card import plots
from stages.reward_model_card.card import Card, as_json, as_markdown
from stages.reward_model_card.figures import flat_metrics, headline, notes
from stages.reward_model_card.origins import by_origin, origin_metrics, origin_tables
from stages.reward_model_card.pairs import judge
from stages.reward_model_card.tables import tables, worst_pairs


def run(
    config: RewardModelCardConfig, inputs: RewardModelCardInputs, compute: Compute, out_dir: Path
) -> tuple[RewardModelCardOutputs, dict[str, float]]:
    """Score the held-out pairs, write ``card/`` (card.json, card.md, plots) and return every figure
    under a flat name. What cannot be computed is left out, and the card says why.

    Raises:
        UserError: no held-out pairs, none short enough for the reward model, scores that are no
            numbers, or a model that does not fit the SFT model.
    """
    judged = judge(config, inputs, compute)
    rows = headline(judged, num_samples=config.num_bootstrap_samples, seed=config.seed)
    origins = by_origin(judged, num_samples=config.num_bootstrap_samples, seed=config.seed)
    metrics = flat_metrics(judged, rows) | origin_metrics(origins)
    drawn = list(plots.draw(judged, rows))
    card = Card(
        num_pairs=judged.num_pairs,
        rows=rows,
        tables=[*origin_tables(origins), *tables(judged)],
        plots=[plot.about for plot in drawn],
        worst_pairs=worst_pairs(judged, config.num_worst_pairs),
        notes=notes(judged, config),
        refusals=reward_model_refusals(config.gate, metrics),
    )
    folder = out_dir / "card"
    _write(folder, card, drawn)
    return RewardModelCardOutputs(card=make_artifact("card", folder)), metrics


def _write(folder: Path, card: Card, drawn: Sequence[plots.Plot]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed while writing
    folder.mkdir(parents=True)
    for plot in drawn:
        tracking.log_figure(plot.figure, plot.about["name"], folder)
    tracking.log_table(card.worst_pairs, "worst_pairs")
    text = json.dumps(as_json(card), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8", errors="replace")
    (folder / "card.md").write_text(as_markdown(card), encoding="utf-8", errors="replace")
