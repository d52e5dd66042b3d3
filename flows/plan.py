"""Which stages a configuration has, what each one needs, and the checks before anything runs."""

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from flows.places import (
    DATA_KINDS,
    find_file,
    scorer_path,
    setting_files,
    source_files_by_kind,
)
from stages.core import contracts
from stages.core.config import (
    BaseModelConfig,
    BenchmarksConfig,
    ClassifierConfig,
    EvaluateConfig,
    Frozen,
    PipelineConfig,
    PPOConfig,
    StageConfig,
)
from stages.core.errors import UserError
from stages.core.scorer_places import (
    check_classifier,
    check_judging_scorer_name,
    check_scorer_name,
    is_chain_classifier,
    place_label,
    reward_model_base,
    scorer_folder_kind,
)

StageName = Literal[
    "collect", "clean", "base_model", "tokenizer", "pretrain", "sft", "reward_model",
    "guard_model", "reward_model_card", "classifier", "ppo", "benchmarks", "evaluate",
]  # fmt: skip

OptionalStageName = Literal[
    "", "collect", "clean", "base_model", "tokenizer", "pretrain", "sft", "reward_model",
    "guard_model", "reward_model_card", "classifier", "ppo", "benchmarks", "evaluate",
]  # fmt: skip

OUTPUTS: dict[str, type[Frozen]] = {
    "collect": contracts.Datasets,
    "clean": contracts.Datasets,
    "base_model": contracts.ModelOutputs,
    "tokenizer": contracts.TokenizerOutputs,
    "pretrain": contracts.ModelOutputs,
    "sft": contracts.SFTOutputs,
    "reward_model": contracts.RewardModelOutputs,
    "guard_model": contracts.RewardModelOutputs,
    "reward_model_card": contracts.RewardModelCardOutputs,
    "classifier": contracts.ClassifierOutputs,
    "ppo": contracts.PPOOutputs,
    "benchmarks": contracts.BenchmarksOutputs,
    "evaluate": contracts.EvaluateOutputs,
}
"""All stages in their order, with what each returns."""
OUTSIDE_PIPELINE = ("sample_pairs", "judge_pairs")
"""Stages that flows of their own run on a pipeline's results."""

NEEDED_DATA = {
    "tokenizer": ("documents",),
    "pretrain": ("documents",),
    "sft": ("sft",),
    "reward_model": ("preferences", "prompts"),
    "ppo": ("prompts",),
}
KEPT = ("base_model", "tokenizer", "pretrain", "sft", "classifier")
"""Stages that a retraining takes from the run that it starts from."""
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def planned_stages(config: PipelineConfig, until: str = "") -> tuple[str, ...]:
    """The stages that this configuration runs, up to and including ``until``.

    Raises:
        UserError: the configuration has no way to a base model, or no stage ``until``.
    """
    left_out = {"tokenizer"} if config.base_model.source else {"base_model"}
    if not config.pretrain.enabled:
        if not config.base_model.source:
            raise UserError(
                "pretrain.enabled is false and base_model.source is empty: give "
                "base_model.source a model folder, a .gguf file or a hub name"
            )
        left_out.add("pretrain")
    left_out |= _not_wanted(config)
    stages = tuple(stage for stage in OUTPUTS if stage not in left_out)
    return stages[: position(stages, until) + 1] if until else stages


def retraining_stages(config: PipelineConfig) -> tuple[str, ...]:
    """The stages that a retraining runs: those that judgments change. The SFT model is made again
    only where it learns from judgments, too (``collect.sft.feedback``)."""
    kept = set(KEPT) - ({"sft"} if config.collect.sft.feedback else set())
    return tuple(stage for stage in OUTPUTS if stage not in kept | _not_wanted(config))


def position(stages: tuple[str, ...], stage: str) -> int:
    """The place of ``stage`` among the planned ``stages``.

    Raises:
        UserError: it is not among them.
    """
    if stage not in stages:
        raise UserError(f"this run has no stage {stage}; its stages are: {', '.join(stages)}")
    return stages.index(stage)


def stage_config(config: PipelineConfig, stage: str) -> StageConfig:
    """The section of one stage."""
    section = getattr(config, stage)
    assert isinstance(section, StageConfig)
    return section


def check(config: PipelineConfig, stages: Sequence[str]) -> None:
    """Find what is missing before anything runs.

    Raises:
        UserError: a file of the configuration does not exist, or a planned stage has no data.
    """
    if "collect" in stages:
        _check_data(config, stages)
    if "clean" in stages:
        _check_cleaning(config)
    for section in (config.base_model, config.classifier):
        if section.stage in stages:
            _check_model(section)
    for judging in (config.ppo, config.evaluate):
        if judging.stage in stages:
            _check_scorers(config, judging, stages)
    if "evaluate" in stages:
        _check_evaluation(config, stages)
    if "benchmarks" in stages:
        _check_benchmarks(config.benchmarks)


def check_retraining(config: PipelineConfig) -> None:
    """Whether new judgments can change the policy under these settings.

    Raises:
        UserError: none would be read, or nothing would learn from them.
    """
    for number, source in enumerate(config.collect.preferences.feedback):
        if source.until:
            raise UserError(
                f"collect.preferences.feedback.{number}.until = {source.until}: what was judged "
                "since would never be read; leave it out, or repeat a past run with align"
            )
    if config.ppo.algorithm != "dpo" and not config.ppo.scorer_weights.get("reward_model"):
        raise UserError(
            "ppo.scorer_weights gives the reward model no weight, so judgments would change "
            "nothing: give reward_model one"
        )


def check_harness() -> None:
    """Whether lm-evaluation-harness is installed; its version is checked by the stage.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("the benchmarks need the package lm_eval: pip install 'rlhf-flows[eval]'")


# ------------------------------------------------------------------------------------ helpers


def _not_wanted(config: PipelineConfig) -> set[str]:
    optional = {
        "guard_model": config.clean.guard_share,
        "classifier": config.collect.labelled.is_given,
        "benchmarks": config.benchmarks.suites,
    }
    return {stage for stage, wanted in optional.items() if not wanted}


def _check_data(config: PipelineConfig, stages: Sequence[str]) -> None:
    for stage in stages:
        for kind in NEEDED_DATA.get(stage, ()):
            if not getattr(config.collect, kind).is_given:
                raise UserError(
                    f"collect.{kind}.paths is empty, but stage {stage} needs this data: give "
                    f"files with --set collect.{kind}.paths=…, or urls, hub, sql, s3 or feedback"
                )
    for stage, kind in (("reward_model_card", "preferences"), ("evaluate", "prompts")):
        source = getattr(config.collect, kind)
        held_out = source.held_out_paths or source.held_out_share or source.feedback
        if stage in stages and not held_out:
            raise UserError(
                f"collect.{kind}.held_out_share is 0 and there are no held_out_paths, but stage "
                f"{stage} needs held-out {kind}: set one of the two"
            )
    if not any(getattr(config.collect, kind).is_given for kind in DATA_KINDS):
        raise UserError("collect has no data: set collect.documents.paths or another kind's")
    source_files_by_kind(config)


def _check_cleaning(config: PipelineConfig) -> None:
    setting_files(config.clean.evaluation_sets, "clean.evaluation_sets")
    place = config.clean.toxicity_scorer
    if place:
        setting = "clean.toxicity_scorer"
        if is_chain_classifier(place):
            raise UserError(
                f"{setting}: the chain's own classifier is trained after cleaning: name an earlier "
                "one's folder"
            )
        _check_scorer(setting, place, scorer_path(setting, place))


def _check_model(section: BaseModelConfig | ClassifierConfig) -> None:
    """Whether the model that a stage starts from is here, or is pinned."""
    source, setting = section.source, f"{section.stage}.source"
    if not source or find_file(source):
        return
    if not HUB_NAME.fullmatch(source) or source.endswith(".gguf"):
        raise UserError(f"{setting}: {source}: no such file or folder, and no hub name")
    if not section.revision:
        raise UserError(
            f"{setting}: {source} is a hub name (no such file or folder here): pin it "
            f"with {section.stage}.revision=<commit>"
        )


def _check_scorers(
    config: PipelineConfig, section: PPOConfig | EvaluateConfig, stages: Sequence[str]
) -> None:
    is_judging = section.stage == "evaluate"
    check_name = check_judging_scorer_name if is_judging else check_scorer_name
    for name, place in section.scorers.items():
        setting = f"{section.stage}.scorers.{name}"
        check_name(setting, name)
        if is_judging and place in _optimised(config):
            raise UserError(
                f"{setting}: PPO optimises {place!r} (ppo.scorer_weights), and what is optimised "
                "cannot judge: leave it out here, PPO's own figures have its score"
            )
        if not is_chain_classifier(place):
            _check_scorer(setting, place, scorer_path(setting, place))
        elif "collect" in stages and not config.collect.labelled.is_given:
            raise UserError(
                f"{setting}: {place!r} is the chain's own classifier, and this run trains none: "
                "give it labelled text with collect.labelled.paths=…"
            )


def _check_scorer(setting: str, place: str, path: Path) -> None:
    """Whether a scorer's folder can be one; a reward model's base must still be there, a
    classifier's label exist."""
    try:
        if not path.is_dir():
            return
        if scorer_folder_kind(path) == "reward_model":
            reward_model_base(path)
        else:
            check_classifier(path, place_label(place))
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


def _optimised(config: PipelineConfig) -> set[str]:
    """The places of the scorers that PPO gives a weight."""
    weights = config.ppo.scorer_weights
    return {place for name, place in config.ppo.scorers.items() if weights.get(name)}


def _check_evaluation(config: PipelineConfig, stages: Sequence[str]) -> None:
    section = config.evaluate
    for name in ("toxicity_prompts", "refusal_prompts"):
        setting_files(getattr(section.safety, name), f"evaluate.safety.{name}")
    if section.judge.url and not section.judge.model:
        raise UserError("evaluate.judge.model is empty: name the model that the endpoint serves")
    witnesses = {"reward_model", *section.scorers}
    if config.clean.guard_share or "clean" not in stages:  # an earlier run may bring one
        witnesses.add("guard_model")
    if section.judge.url:
        witnesses.add("judge")
    if section.gate.scorer and section.gate.scorer not in witnesses:
        raise UserError(
            f"evaluate.gate.scorer: nothing called {section.gate.scorer!r} judges in this run; "
            f"there are: {', '.join(sorted(witnesses))}"
        )


def _check_benchmarks(config: BenchmarksConfig) -> None:
    check_harness()
    if config.folder and not (find_file(config.folder) or Path("?")).is_dir():
        raise UserError(f"benchmarks.folder: {config.folder}: no such folder")
    if "perplexity" in config.suites and not config.perplexity_paths:
        raise UserError("benchmarks.suites has perplexity: give text files, perplexity_paths=…")
    setting_files(config.perplexity_paths, "benchmarks.perplexity_paths")
