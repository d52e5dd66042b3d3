"""What a run leaves for people: its report, its policy in the registry, and the gate's verdict."""

from collections.abc import Mapping
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows import lineage, progress
from flows.chain import Results
from flows.promotion import Opponent, ask_and_promote, make_champion
from flows.reward_model_change import show_change
from flows.servers import mlflow_address
from stages.core import tracking
from stages.core.config import Frozen, PipelineConfig
from stages.core.contracts import EvaluateOutputs, PPOOutputs, SFTOutputs
from stages.core.policy_gate import (
    REWARD_MODEL,
    gate_scorer,
    policy_gate_rows,
    policy_refusals,
)

REFUSED = "Refused by the gate"
"""State of a run whose policy did not pass."""
DETAILS_BEGIN = "## The models side by side"
"""Heading in the report: what a person decides by comes before it."""
DETAILS = ("_low", "_high", "_stderr")
"""Ends of the names of figures that stay in the report."""


def publish(
    config: PipelineConfig,
    run_id: str,
    outputs: Mapping[str, Frozen],
    results: Results,
    opponent: Opponent,
) -> list[str]:
    """The report in both UIs and on the terminal, the policy in the registry, and its promotion as
    configured, if it passed the gate.

    Returns:
        The gate's reasons against the policy; none where it passed.

    Raises:
        UserError: the champion has changed since the evaluation.
    """
    evaluate, ppo, sft = outputs["evaluate"], outputs["ppo"], outputs["sft"]
    assert isinstance(evaluate, EvaluateOutputs)
    assert isinstance(ppo, PPOOutputs)
    assert isinstance(sft, SFTOutputs)
    report, metrics = evaluate.report.locate(), results["evaluate"].metrics
    tracking.log_report(run_id, report)
    reasons = policy_refusals(config.evaluate.gate, metrics)
    refused = bool(reasons) and config.evaluate.gate.action == "refuse"
    verdict = "refused: " if refused else "warned: " if reasons else "passed"
    verdict += "; ".join(reasons)
    tags = {
        **{name: f"{value:.4g}" for name, value in metrics.items() if not name.endswith(DETAILS)},
        "parent_run": run_id,
        "policy_digest": ppo.model.digest,
        "base": sft.model.path,
        "base_digest": sft.model.digest,
        "gate": verdict,
        "gate_table": _gate_table(config, metrics),
        **lineage.feedback_tags(results),
    }
    if opponent.number:
        tags[tracking.COMPARED_WITH] = opponent.number
    policy = ppo.adapter or ppo.model  # no adapter where all weights were trained
    version = tracking.register_policy(run_id, policy.locate(), tags)
    tracking.tag_run(run_id, {"policy_gate": verdict, "policy_version": version})
    lineage.tag_judged(results, run_id, version)
    show_change(results, run_id)
    page = mlflow_address() + tracking.run_page(run_id)
    links = f"[MLflow run]({page}) · policy: `{tracking.POLICY}` version {version} (challenger)\n\n"
    text = links + _report_text(report)
    create_markdown_artifact(text, key="report", description="Report")
    progress.current().places.update(
        {
            "gate": verdict,
            "report": str(report / "report.html"),
            "policy": f"{ppo.model.locate()} ({tracking.POLICY} version {version})",
        }
    )
    if refused:
        return reasons
    if config.approval.promotion == "auto":
        _promote_unasked(config, version, metrics)
    elif config.approval.promotion == "ask":
        verdict_and_link = text.partition(DETAILS_BEGIN)[0]
        ask_and_promote(config, version, opponent.number, verdict_and_link)
    return []


# ------------------------------------------------------------------------------------ helpers


def _promote_unasked(config: PipelineConfig, version: str, metrics: Mapping[str, float]) -> None:
    """Nobody looks at an unattended run: what PPO maximised is no witness that it got better, and
    what was rolled back stays so."""
    against, gate = "", config.evaluate.gate
    if not gate.scorer and gate_scorer(gate, metrics) == REWARD_MODEL:
        against = (
            "only the reward model, which PPO maximised, says that it is better; set "
            "clean.guard_share, evaluate.judge.url or evaluate.scorers"
        )
    elif tracking.was_rolled_back(version):
        against = "it was rolled back"
    if against:
        text = f"version {version} stays challenger until a person promotes it: {against}"
        get_run_logger().warning(text)
        progress.current().warn("promotion", text)
        return
    make_champion(version, "promoted without a question (approval.promotion = auto)")


def _gate_table(config: PipelineConfig, metrics: Mapping[str, float]) -> str:
    rows = policy_gate_rows(config.evaluate.gate, metrics)
    lines = "\n".join(
        f"| {row.rule} | {row.figure} | {row.limit} | {row.outcome} |" for row in rows
    )
    return f"| rule | figure | limit | |\n|---|---|---|---|\n{lines}\n"


def _report_text(report: Path) -> str:
    """The report without its plots, which Prefect cannot show from the disk."""
    text = (report / "report.md").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("!["))
