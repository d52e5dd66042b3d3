"""From challenger to champion: whom a policy is compared with, the gate, and a person's yes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.states import Cancelled

from flows import approval
from flows.profiles import validated
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.artifacts import Artifact, StageResult
from stages.core.config import Frozen, PipelineConfig
from stages.core.contracts import PPOOutputs
from stages.core.errors import UserError
from stages.core.form import parameter

ONE_AT_A_TIME = "rlhf-promotion"
"""Limit of Prefect's that keeps two promotions apart, on other machines of the same server too."""
TIMEOUT_SECONDS = 300.0


@dataclass
class Opponent:
    """The champion that a run's policy is compared with, looked up when its evaluation begins."""

    config: PipelineConfig
    number: str = tracking.NOBODY
    """Of its version; empty where nobody is to be compared with."""

    def find(self, outputs: Mapping[str, Frozen]) -> Artifact | None:
        """The champion's model, brought to this machine. None where there is no champion, the
        policy is the champion, or its model is gone: the policy is not compared then."""
        if not self.config.evaluate.compare_champion:
            self.number = ""
            return None
        champion, policy = tracking.champion(), outputs.get("ppo")
        assert isinstance(policy, PPOOutputs | None)
        if champion is None:
            return None
        if policy is not None and champion.policy_digest == policy.model.digest:
            self.number = champion.version
            return None
        result = _result_of_champion()
        if result is None:
            get_run_logger().warning(
                f"the champion (version {champion.version}) is neither on this machine nor in "
                "MLflow's artifacts: the policy is not compared with it, and cannot be promoted"
            )
            return None
        self.number = champion.version
        return PPOOutputs.model_validate(result.outputs).model


@flow(name="promote", flow_run_name="promote {version}", persist_result=False)
@refusals_as_states
def promote(
    version: Annotated[str, parameter("Version")] = "challenger",
    mode: Annotated[Literal["ask", "auto"], parameter("Mode")] = "ask",
    timeout_hours: Annotated[float, parameter("Timeout hours", gt=0)] = 72.0,
) -> Any:
    """Give the alias champion to a version of the registered model rlhf-policy that passed its
    gate.

    Args:
        version: Alias or number of the version.
        mode: ask suspends the run until a person decides on the run's page; auto does it at once.
        timeout_hours: A question that nobody answers ends the run after this time, hours; above 0.

    Raises:
        UserError: there is no such version, its gate refused it, or it was compared with another
            champion than the present one.
    """
    approvals = {"promotion": mode, "timeout_hours": timeout_hours}
    config = validated({"approval": approvals})
    approval.check(config)
    tags = tracking.version_tags(version)
    number = tags["version"]
    if (gate := tags.get("gate", "")).startswith("refused"):
        raise UserError(f"version {number} did not pass its gate, {gate}")
    text = f"`{tracking.POLICY}` version {number}\n\n{tags.get('gate_table', '')}\n"
    if mode == "auto":
        make_champion(number, "promoted without a question (mode = auto)")
    elif not ask_and_promote(config, number, tags.get(tracking.COMPARED_WITH, ""), text):
        return Cancelled(message=f"version {number} stays challenger")
    create_markdown_artifact(f"Champion now: {text}", key="promotion", description="Promotion")
    return {"version": float(number)}


def ask_and_promote(config: PipelineConfig, version: str, opponent: str, text: str) -> bool:
    """Ask a person whether the version becomes champion, and do as they say. Returns whether it
    did.

    Args:
        opponent: number of the champion that it was compared with.
        text: Markdown shown above the form.
    """
    answer = approval.promotion(config, f"{version}-{opponent}", text)
    if answer.decision == "promote":
        make_champion(version, answer.comment)
        return True
    tracking.leave_as_challenger(version, answer.comment)
    return False


def make_champion(version: str, comment: str) -> None:
    """Make the version champion, one promotion at a time: the second of two finds another champion
    than the one that it was compared with.

    Raises:
        UserError: there is no such version, or the champion has changed since its evaluation.
    """
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(ONE_AT_A_TIME, 1)
    try:
        with concurrency(ONE_AT_A_TIME, timeout_seconds=TIMEOUT_SECONDS):
            tracking.promote(version, comment)
    except TimeoutError:
        raise UserError(
            f"another promotion has not ended within {TIMEOUT_SECONDS:.0f} s; start promote again"
        ) from None


# ------------------------------------------------------------------------------------ helpers


def _result_of_champion() -> StageResult | None:
    """PPO's result, brought to this machine; None where it, or the run that made it, is gone."""
    try:
        made = tracking.earlier_run(f"{tracking.POLICY}@champion").results.get("ppo")
    except UserError:
        return None
    return tracking.fetch("ppo", made.key) if made else None
