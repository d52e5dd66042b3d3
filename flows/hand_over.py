"""What each stage gets from the stages before it."""

from collections.abc import Mapping
from typing import TypeVar

from flows.places import find_file, scorer_path, setting_files, source_files_by_kind
from stages.core import contracts
from stages.core.artifacts import Artifact, ArtifactKind, make_artifact
from stages.core.config import EvaluateConfig, Frozen, PipelineConfig, PPOConfig
from stages.core.errors import UserError
from stages.core.scorer_places import is_chain_classifier

Model = TypeVar("Model", bound=Frozen)
Inputs = tuple[Frozen, tuple[str, ...]]


def stage_inputs(
    stage: str,
    config: PipelineConfig,
    outputs: Mapping[str, Frozen],
    champion: Artifact | None = None,
    previous: Artifact | None = None,
) -> Inputs:
    """A stage's inputs from the ``outputs`` of the stages before it, and the names of the stages
    they came from.

    Args:
        champion: the model that the policy is compared with, where there is one.
        previous: the reward model that the new one is compared with, where there is one.

    Raises:
        UserError: a file of the user's is gone, or an earlier run lacks a stage.
    """
    if stage == "collect":
        return _collect(config, outputs), _there(outputs, "fetch")
    if stage == "clean":
        return _clean(config, _of(contracts.Datasets, outputs, "collect", stage)), ("collect",)
    if stage == "base_model":
        path = find_file(config.base_model.source)
        source = make_artifact("model", path) if path else None
        return contracts.BaseModelInputs(source=source), ()
    data = _of(contracts.Datasets, outputs, "clean", stage)
    if stage == "tokenizer":
        return contracts.TokenizerInputs(documents=_given(data.documents)), ("clean",)
    if stage == "pretrain":
        return _pretrain(data, outputs)
    base_stage = "pretrain" if "pretrain" in outputs else "base_model"
    base = _of(contracts.ModelOutputs, outputs, base_stage, stage).model
    if stage == "sft":
        return contracts.SFTInputs(model=base, sft=_given(data.sft)), ("clean", base_stage)
    if stage == "classifier":
        return _classifier(config, data, base), ("clean", base_stage)
    sft = _of(contracts.SFTOutputs, outputs, "sft", stage).model
    if stage in ("reward_model", "guard_model"):
        pairs = data.preferences if stage == "reward_model" else data.guard_preferences
        given = {"model": sft, "preferences": _given(pairs), "prompts": _given(data.prompts)}
        is_guard = stage == "guard_model"
        kind = contracts.GuardModelInputs if is_guard else contracts.RewardModelInputs
        return kind.model_validate(given), ("clean", "sft")
    if stage == "reward_model_card":
        return _reward_model_card(data, sft, outputs, previous)
    if stage == "ppo":
        return _ppo(config, data, sft, outputs)
    if stage == "benchmarks":
        return _benchmarks(config, base, base_stage, sft, outputs)
    return _evaluate(config, data, base, base_stage, sft, outputs, champion)


# ------------------------------------------------------------------------------------ helpers


def _collect(config: PipelineConfig, outputs: Mapping[str, Frozen]) -> contracts.CollectInputs:
    """The files of the paths, and behind them those that were fetched."""
    fetched = outputs.get("fetch", contracts.CollectInputs())
    artifacts = {
        name: (*(make_artifact("source", file) for file in files), *getattr(fetched, name))
        for name, files in (source_files_by_kind(config) | {"reserved": ()}).items()
    }
    return contracts.CollectInputs.model_validate(artifacts)


def _clean(config: PipelineConfig, collected: contracts.Datasets) -> contracts.CleanInputs:
    place = config.clean.toxicity_scorer
    setting = "clean.toxicity_scorer"
    return contracts.CleanInputs(
        datasets=collected,
        evaluation=_files(config.clean.evaluation_sets, "clean.evaluation_sets"),
        toxicity_scorer=make_artifact("scorer", scorer_path(setting, place)) if place else None,
    )


def _pretrain(data: contracts.Datasets, outputs: Mapping[str, Frozen]) -> Inputs:
    documents = _given(data.documents)
    if "base_model" in outputs:
        model = _of(contracts.ModelOutputs, outputs, "base_model", "pretrain").model
        return contracts.PretrainInputs(documents=documents, model=model), ("clean", "base_model")
    tokenizer = _of(contracts.TokenizerOutputs, outputs, "tokenizer", "pretrain").tokenizer
    return contracts.PretrainInputs(documents=documents, tokenizer=tokenizer), (
        "clean",
        "tokenizer",
    )


def _classifier(
    config: PipelineConfig, data: contracts.Datasets, base: Artifact
) -> contracts.ClassifierInputs:
    source = config.classifier.source
    path = find_file(source)
    model = make_artifact("model", path) if path else None if source else base
    return contracts.ClassifierInputs(labelled=_given(data.labelled), model=model)


def _reward_model_card(
    data: contracts.Datasets,
    sft: Artifact,
    outputs: Mapping[str, Frozen],
    previous: Artifact | None,
) -> Inputs:
    inputs = contracts.RewardModelCardInputs(
        model=sft,
        reward_model=_reward_model(outputs, "reward_model_card"),
        preferences=_given(data.preferences),
        guard_model=_guard_model(outputs),
        previous=previous,
    )
    return inputs, ("clean", "sft", "reward_model", *_there(outputs, "guard_model"))


def _ppo(
    config: PipelineConfig, data: contracts.Datasets, sft: Artifact, outputs: Mapping[str, Frozen]
) -> Inputs:
    inputs = contracts.PPOInputs(
        model=sft,
        reward_model=_reward_model(outputs, "ppo"),
        prompts=_given(data.prompts),
        # Only where they are used: other results do not depend on them.
        preferences=_given(data.preferences) if config.ppo.algorithm == "dpo" else None,
        scorers=_scorers(config.ppo, outputs),
    )
    uses_classifier = any(map(is_chain_classifier, config.ppo.scorers.values()))
    upstream = ("clean", "sft", "reward_model")
    return inputs, (*upstream, "classifier") if uses_classifier else upstream


def _benchmarks(
    config: PipelineConfig,
    base: Artifact,
    base_stage: str,
    sft: Artifact,
    outputs: Mapping[str, Frozen],
) -> Inputs:
    ppo = _of(contracts.PPOOutputs, outputs, "ppo", "benchmarks")
    folder = find_file(config.benchmarks.folder)
    inputs = contracts.BenchmarksInputs(
        models={"base": base, "sft": sft, "policy": ppo.adapter or ppo.model},
        bases={"policy": sft} if ppo.adapter else {},
        folder=make_artifact("source", folder) if folder else None,
        texts=_files(config.benchmarks.perplexity_paths, "benchmarks.perplexity_paths"),
    )
    return inputs, (base_stage, "sft", "ppo")


def _evaluate(
    config: PipelineConfig,
    data: contracts.Datasets,
    base: Artifact,
    base_stage: str,
    sft: Artifact,
    outputs: Mapping[str, Frozen],
    champion: Artifact | None,
) -> Inputs:
    ppo = _of(contracts.PPOOutputs, outputs, "ppo", "evaluate")
    safety = config.evaluate.safety
    optional = _there(outputs, "guard_model", "reward_model_card", "classifier", "benchmarks")

    def made_by(stage: str, field: str) -> Artifact | None:
        return getattr(outputs[stage], field) if stage in optional else None

    inputs = contracts.EvaluateInputs(
        base=base,
        sft=sft,
        policy=ppo.model,
        reward_model=_reward_model(outputs, "evaluate"),
        datasets=data,
        history=ppo.history,
        champion=champion,
        guard_model=_guard_model(outputs),
        classifier=made_by("classifier", "classifier"),
        reward_model_card=made_by("reward_model_card", "card"),
        benchmarks=made_by("benchmarks", "benchmarks"),
        toxicity_prompts=_files(safety.toxicity_prompts, "evaluate.safety.toxicity_prompts"),
        refusal_prompts=_files(safety.refusal_prompts, "evaluate.safety.refusal_prompts"),
        scorers=_scorers(config.evaluate, outputs),
    )
    return inputs, ("clean", base_stage, "sft", "reward_model", "ppo", *optional)


def _scorers(
    section: PPOConfig | EvaluateConfig, outputs: Mapping[str, Frozen]
) -> dict[str, Artifact]:
    """What the scorers of a stage's section are made of, by name."""

    def artifact(name: str, place: str) -> Artifact:
        if is_chain_classifier(place):
            kind = contracts.ClassifierOutputs
            return _of(kind, outputs, "classifier", section.stage).classifier
        return make_artifact("scorer", scorer_path(f"{section.stage}.scorers.{name}", place))

    return {name: artifact(name, place) for name, place in section.scorers.items()}


def _reward_model(outputs: Mapping[str, Frozen], stage: str) -> Artifact:
    return _of(contracts.RewardModelOutputs, outputs, "reward_model", stage).reward_model


def _guard_model(outputs: Mapping[str, Frozen]) -> Artifact | None:
    if "guard_model" not in outputs:
        return None
    return _of(contracts.RewardModelOutputs, outputs, "guard_model", "evaluate").reward_model


def _there(outputs: Mapping[str, Frozen], *stages: str) -> tuple[str, ...]:
    return tuple(stage for stage in stages if stage in outputs)


def _files(paths: tuple[str, ...], setting: str) -> tuple[Artifact, ...]:
    kind: ArtifactKind = "source"
    return tuple(make_artifact(kind, path) for path in setting_files(paths, setting))


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
