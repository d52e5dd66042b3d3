"""The flow ``retrain``: people's judgments become the next policy."""

from dataclasses import dataclass
from typing import Annotated, Any

import prefect.runtime
from prefect import flow
from prefect.states import Cancelled, Completed

from flows import approval, chain, lineage, progress, recovery
from flows.new_judgments import new_judgments
from flows.one_retraining import already_at_it
from flows.pipeline import run_chain
from flows.plan import KEPT, check, check_retraining, retraining_stages
from flows.profiles import cpu_demo, override
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.config import FeedbackSource, PipelineConfig
from stages.core.config.base import Count
from stages.core.contracts import RewardModelOutputs
from stages.core.errors import UserError
from stages.core.form import parameter
from stages.core.tracking.lineage import STARTED_FROM, STARTED_FROM_VERSION

CHAMPION = f"{tracking.POLICY}@champion"
NOTHING_NEW = "Nothing new"
"""State of a run that found too few new judgments."""
NEEDED = ("sft", "reward_model", "ppo")
"""Stages without whose results nothing can be retrained."""


def with_feedback(config: PipelineConfig) -> PipelineConfig:
    """The settings of a retraining that reads judgments: those of the experiment ``feedback`` where
    it names none. The prompts that people were asked about come along, since those of the random
    share must be held out from PPO, and the policy be evaluated on them."""
    collect = config.collect
    given = collect.preferences.feedback or (FeedbackSource(),)
    changes: dict[str, Any] = {}
    for kind in ("preferences", "prompts"):
        if not getattr(collect, kind).feedback:
            read = [source.model_dump(mode="json") for source in given]
            changes[f"collect.{kind}.feedback"] = read
    return override(config, changes) if changes else config


def retrain_demo() -> PipelineConfig:
    """The demo's settings, and a person who decides about the champion."""
    return with_feedback(override(cpu_demo(), {"approval.promotion": "ask"}))


def _run_name() -> str:
    return _run_name_of(prefect.runtime.flow_run.parameters["config"])


@flow(name="retrain", flow_run_name=_run_name, persist_result=False)
@refusals_as_states
def retrain(
    config: Annotated[PipelineConfig, parameter("Settings")] = retrain_demo(),
    min_new_judgments: Annotated[Count, parameter("Min new judgments")] = 1,
    earlier_run: Annotated[str, parameter("Earlier run")] = CHAMPION,
    fresh: Annotated[bool, parameter("Fresh")] = False,
) -> Any:
    """Judgments become the next policy: reward model and PPO again on the champion's SFT model.

    The base and SFT models are those of the run that made the champion. The reward model learns
    from all files and judgments there are; the new policy is compared with the champion on held-out
    prompts, among them those of the random share, and gate and approval decide about it. The SFT
    model is made again, from the same base model, only where collect.sft.feedback is given.

    Args:
        config: Every setting of every stage. Without collect.preferences.feedback, the judgments of
            the experiment feedback are read.
        min_new_judgments: Do nothing where fewer judgments are new since the last retraining that
            finished; at least 0.
        earlier_run: The run to start from: a registered model's alias such as rlhf-policy@champion,
            or an MLflow run's name or id.
        fresh: Make the stages again though their results are there.

    Returns:
        The figures of the evaluation.

    Raises:
        UserError: a setting, file or data that only the user can mend; there is no champion.
        StageCrashedError: a stage's process ended without a result, retries included.
    """
    config = with_feedback(config)
    stages = retraining_stages(config)
    check_retraining(config)
    check(config, stages)
    approval.check(config)
    recovery.mark_this_run([config.profile])
    recovery.sweep_if_possible()
    if other := already_at_it(config.profile):
        state = other.state.name if other.state else "unknown"
        message = f"{other.name} ({state}) retrains {config.profile} already; flow run {other.id}"
        return Cancelled(name="Already at it", message=message)
    found = [
        new_judgments(experiment, kinds, config.profile)
        for experiment, kinds in lineage.kinds_wanted(config).items()
    ]
    # What a run that begins again has read is not asked about: it goes on to its end.
    if sum(one.count for one in found) < min_new_judgments and not chain.begins_again():
        text = "; ".join(one.text for one in found)
        message = f"{text}. A retraining begins at {min_new_judgments}"
        progress.current().warn(NOTHING_NEW, message)
        return Completed(name=NOTHING_NEW, message=message)
    start = Start(config, earlier_run)
    return run_chain(
        config,
        stages,
        _run_name_of(config),
        forced=stages if fresh else (),
        brought=start.bring,
        previous=start.reward_model,
    )


@dataclass
class Start:
    """The run that a retraining starts from. A retraining that begins again, after a crash or an
    answer, starts from the same one, whoever is champion by then."""

    config: PipelineConfig
    reference: str

    def __post_init__(self) -> None:
        self.run = self._find(self.reference)

    def bring(self, run_id: str) -> chain.Results:
        """The results that are not made again, brought into the MLflow run ``run_id``."""
        begun_from = tracking.run_tags(run_id).get(STARTED_FROM)
        if begun_from and begun_from != self.run.run_id:
            self.run = self._find(begun_from)
        elif not begun_from:
            version = tracking.run_tags(self.run.run_id).get("policy_version", "")
            tags = {STARTED_FROM: self.run.run_id, STARTED_FROM_VERSION: version}
            tracking.tag_run(run_id, tags)
        kept = [stage for stage in KEPT if stage not in retraining_stages(self.config)]
        return chain.bring(self.run, run_id, kept)

    def reward_model(self) -> Artifact | None:
        """The reward model that the new one is compared with."""
        made = self.run.results["reward_model"]
        result = tracking.fetch(made.stage, made.key)
        if result is None:
            return None
        return RewardModelOutputs.model_validate(result.outputs).reward_model

    def _find(self, reference: str) -> tracking.EarlierRun:
        if reference == CHAMPION and tracking.champion() is None:
            raise UserError(
                f"no version of {tracking.POLICY} is champion yet, so there is nothing to start "
                "from: run align, then promote its policy (promote/on-cpu), or choose another "
                f"Earlier run such as {tracking.POLICY}@challenger"
            )
        run = tracking.earlier_run(reference)
        missing = [stage for stage in NEEDED if stage not in run.results]
        if missing:
            raise UserError(
                f"run {run.name!r} has no finished {', '.join(missing)}, so nothing can be "
                "retrained from it; name a run of align in Earlier run"
            )
        if run.experiment != self.config.profile:
            raise UserError(
                f"these are settings of {self.config.profile!r}, but {reference} comes from a run "
                f"of {run.experiment!r}: give that run's settings (rlhf deploy --cron … --profile "
                f"or --config), or set profile={run.experiment}"
            )
        return run


# ------------------------------------------------------------------------------------ helpers


def _run_name_of(config: PipelineConfig) -> str:
    return f"retrain {config.profile} seed {config.seed}"
