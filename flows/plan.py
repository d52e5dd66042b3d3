"""Which stages a configuration has, what each one needs, and the checks before anything runs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from flows.environment import CHECKOUT
from stages.core import contracts
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import DataSource, Frozen, PipelineConfig, StageConfig
from stages.core.errors import UserError
from stages.core.scorer_places import (
    check_scorer_name,
    reward_model_base,
    scorer_folder_kind,
)
from stages.core.sources import source_files

StageName = Literal[
    "collect", "clean", "base_model", "tokenizer", "pretrain",
    "sft", "reward_model", "ppo", "evaluate",
]  # fmt: skip

OptionalStageName = Literal[
    "", "collect", "clean", "base_model", "tokenizer", "pretrain",
    "sft", "reward_model", "ppo", "evaluate",
]  # fmt: skip

OUTPUTS: dict[str, type[Frozen]] = {
    "collect": contracts.Datasets,
    "clean": contracts.Datasets,
    "base_model": contracts.ModelOutputs,
    "tokenizer": contracts.TokenizerOutputs,
    "pretrain": contracts.ModelOutputs,
    "sft": contracts.SFTOutputs,
    "reward_model": contracts.RewardModelOutputs,
    "ppo": contracts.PPOOutputs,
    "evaluate": contracts.EvaluateOutputs,
}
"""All stages in their order, with what each returns."""

DATA_KINDS = ("documents", "sft", "preferences", "prompts")
NEEDED_DATA = {
    "tokenizer": ("documents",),
    "pretrain": ("documents",),
    "sft": ("sft",),
    "reward_model": ("preferences", "prompts"),
    "ppo": ("prompts",),
}
Model = TypeVar("Model", bound=Frozen)
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
    stages = tuple(stage for stage in OUTPUTS if stage not in left_out)
    return stages[: position(stages, until) + 1] if until else stages


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
    if "base_model" in stages:
        _check_base_model(config)
    if "ppo" in stages:
        for name, place in config.ppo.scorers.items():
            setting = f"ppo.scorers.{name}"
            check_scorer_name(setting, name)
            _check_scorer(setting, _scorer_path(setting, place))
    if "evaluate" in stages:
        for name, place in config.evaluate.scorers.items():
            setting = f"evaluate.scorers.{name}"
            check_scorer_name(setting, name)
            _scorer_file(setting, place)


def stage_inputs(
    stage: str, config: PipelineConfig, outputs: Mapping[str, Frozen]
) -> tuple[Frozen, tuple[str, ...]]:
    """A stage's inputs from the ``outputs`` of the stages before it, and the names of the stages
    they came from.

    Raises:
        UserError: a file of the user's is gone.
    """
    if stage == "collect":
        artifacts = {
            name: tuple(make_artifact("source", file) for file in files)
            for name, files in _source_files(config).items()
        }
        return contracts.CollectInputs.model_validate(artifacts), ()
    if stage == "clean":
        collected = _of(contracts.Datasets, outputs, "collect", stage)
        return contracts.CleanInputs(datasets=collected), ("collect",)
    if stage == "base_model":
        path = _find(config.base_model.source)
        source = make_artifact("model", path) if path else None
        return contracts.BaseModelInputs(source=source), ()
    data = _of(contracts.Datasets, outputs, "clean", stage)
    if stage == "tokenizer":
        return contracts.TokenizerInputs(documents=_given(data.documents)), ("clean",)
    if stage == "pretrain":
        if "base_model" in outputs:
            model = _of(contracts.ModelOutputs, outputs, "base_model", stage).model
            inputs = contracts.PretrainInputs(documents=_given(data.documents), model=model)
            return inputs, ("clean", "base_model")
        tokenizer = _of(contracts.TokenizerOutputs, outputs, "tokenizer", stage).tokenizer
        inputs = contracts.PretrainInputs(documents=_given(data.documents), tokenizer=tokenizer)
        return inputs, ("clean", "tokenizer")
    base_stage = "pretrain" if "pretrain" in outputs else "base_model"
    base = _of(contracts.ModelOutputs, outputs, base_stage, stage).model
    if stage == "sft":
        return contracts.SFTInputs(model=base, sft=_given(data.sft)), ("clean", base_stage)
    sft = _of(contracts.SFTOutputs, outputs, "sft", stage).model
    if stage == "reward_model":
        reward_model_inputs = contracts.RewardModelInputs(
            model=sft, preferences=_given(data.preferences), prompts=_given(data.prompts)
        )
        return reward_model_inputs, ("clean", "sft")
    reward_model = _of(contracts.RewardModelOutputs, outputs, "reward_model", stage).reward_model
    if stage == "ppo":
        ppo_inputs = contracts.PPOInputs(
            model=sft,
            reward_model=reward_model,
            prompts=_given(data.prompts),
            # Only where they are used: other results do not depend on them.
            preferences=_given(data.preferences) if config.ppo.algorithm == "dpo" else None,
            scorers={
                name: make_artifact("scorer", _scorer_path(f"ppo.scorers.{name}", place))
                for name, place in config.ppo.scorers.items()
            },
        )
        return ppo_inputs, ("clean", "sft", "reward_model")
    ppo = _of(contracts.PPOOutputs, outputs, "ppo", stage)
    evaluate_inputs = contracts.EvaluateInputs(
        base=base,
        sft=sft,
        policy=ppo.model,
        reward_model=reward_model,
        datasets=data,
        history=ppo.history,
        scorers={
            name: make_artifact("scorer", _scorer_file(f"evaluate.scorers.{name}", place))
            for name, place in config.evaluate.scorers.items()
        },
    )
    return evaluate_inputs, ("clean", base_stage, "sft", "reward_model", "ppo")


# ------------------------------------------------------------------------------------ helpers


def _of(kind: type[Model], outputs: Mapping[str, Frozen], source: str, stage: str) -> Model:
    """What stage ``source`` returned, which ``stage`` needs."""
    if source not in outputs:
        there = ", ".join(outputs) or "none"
        raise UserError(
            f"stage {stage} needs the result of stage {source}, which the earlier run does not "
            f"have (its finished stages: {there}); name a run that has it, or run {source} first"
        )
    value = outputs[source]
    assert isinstance(value, kind)
    return value


def _given(artifact: Artifact | None) -> Artifact:
    if artifact is None:
        raise UserError("the cleaned data lacks a kind that was configured; see the log of clean")
    return artifact


def _check_data(config: PipelineConfig, stages: Sequence[str]) -> None:
    for stage in stages:
        for kind in NEEDED_DATA.get(stage, ()):
            if not getattr(config.collect, kind).paths:
                raise UserError(
                    f"collect.{kind}.paths is empty, but stage {stage} needs this data: give "
                    f"files, globs or folders with --set collect.{kind}.paths=…"
                )
    if not any(getattr(config.collect, kind).paths for kind in DATA_KINDS):
        raise UserError("collect has no data: set collect.documents.paths or another kind's")
    _source_files(config)


def _source_files(config: PipelineConfig) -> dict[str, tuple[Path, ...]]:
    """The user's files by the field of ``CollectInputs`` that they belong to."""
    files: dict[str, tuple[Path, ...]] = {}
    for kind in DATA_KINDS:
        source: DataSource = getattr(config.collect, kind)
        name = f"collect.{kind}"
        if source.held_out_paths and not source.paths:
            raise UserError(f"{name}.held_out_paths is given without {name}.paths")
        files[kind] = _expand(source.paths, f"{name}.paths")
        files[f"{kind}_held_out"] = _expand(source.held_out_paths, f"{name}.held_out_paths")
    return files


def _expand(paths: tuple[str, ...], setting: str) -> tuple[Path, ...]:
    try:
        return source_files(paths)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


def _find(text: str) -> Path | None:
    """A file or folder: a relative path counts from the current folder, then from the checkout."""
    found = (root / Path(text).expanduser() for root in (Path.cwd(), CHECKOUT))
    return next((path.resolve() for path in found if text and path.exists()), None)


def _check_base_model(config: PipelineConfig) -> None:
    source = config.base_model.source
    if not source or _find(source):
        return
    if not HUB_NAME.fullmatch(source) or source.endswith(".gguf"):
        raise UserError(f"base_model.source: {source}: no such file or folder, and no hub name")
    if not config.base_model.revision:
        raise UserError(
            f"base_model.source: {source} is a hub name (no such file or folder here): pin it "
            "with base_model.revision=<commit>"
        )


def _scorer_path(setting: str, place: str) -> Path:
    """The folder of a reward model, or the file of a function scorer."""
    path = _find(place)
    if path is not None and path.is_dir():
        return path
    if ":" not in place:
        raise UserError(
            f"{setting}: {place!r} is neither a folder here nor file.py:function; "
            f"looked in {Path.cwd()}"
        )
    return _scorer_file(setting, place)


def _scorer_file(setting: str, place: str) -> Path:
    file, colon, function = place.rpartition(":")
    if not colon or not file.endswith(".py") or not function.isidentifier():
        raise UserError(f"{setting}: {place!r} must be file.py:function")
    path = _find(file)
    if path is None or not path.is_file():
        raise UserError(f"{setting}: {file}: no such file; looked in {Path.cwd()}")
    return path


def _check_scorer(setting: str, path: Path) -> None:
    """Whether a scorer's folder can be one, and a reward model's base is still there."""
    try:
        if path.is_dir() and scorer_folder_kind(path) == "reward_model":
            reward_model_base(path)
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None
