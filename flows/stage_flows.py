"""Each stage as a flow of its own, on the results of an earlier run."""

from collections.abc import Sequence
from typing import Annotated, Any

from prefect import flow
from prefect.states import Completed

from flows import chain
from flows.gates import check_reward_model
from flows.plan import OUTPUTS, check
from flows.profiles import validated
from flows.promotion import Opponent
from flows.publishing import REFUSED, publish
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.config import (
    BaseModelConfig,
    BenchmarksConfig,
    ClassifierConfig,
    CleanConfig,
    CollectConfig,
    Compute,
    EvaluateConfig,
    PipelineConfig,
    PPOConfig,
    PretrainConfig,
    RewardModelCardConfig,
    RewardModelConfig,
    SFTConfig,
    StageConfig,
    TokenizerConfig,
)
from stages.core.form import parameter

EarlierRunName = Annotated[
    str,
    parameter(
        "Earlier run",
        "The MLflow run whose results this stage builds on: its name (the newest run "
        "called so) or id, or a registered model's alias such as rlhf-policy@champion. Empty: the "
        "newest run.",
    ),
]
Fresh = Annotated[bool, parameter("Fresh", "Make the stage again though its result is there.")]
Where = Annotated[Compute, parameter("Compute", "Where the stage runs.")]
BESIDE = {"sft": ("classifier",), "reward_model": ("guard_model", "classifier")}
"""Later stages that do not build on a stage: their results are taken over."""
# The defaults are frozen models: the run form shows their values.
COMPUTE = Compute()


@flow(name="prepare-data", flow_run_name="prepare-data {experiment}", persist_result=False)
@refusals_as_states
def prepare_data(
    collect: Annotated[CollectConfig, parameter("Collect")] = CollectConfig(),
    clean: Annotated[CleanConfig, parameter("Clean")] = CleanConfig(),
    experiment: Annotated[
        str, parameter("Experiment", "Name of the MLflow experiment.")
    ] = "custom",
    fresh: Fresh = False,
) -> Any:
    """Read the user's files, check and clean them."""
    config = _pipeline(experiment, {"collect": collect, "clean": clean})
    return _run(config, ["collect", "clean"], None, fresh)


@flow(name="pretrain", flow_run_name="pretrain seed {pretrain.seed}", persist_result=False)
@refusals_as_states
def pretrain(
    base_model: Annotated[BaseModelConfig, parameter("Base model")] = BaseModelConfig(),
    tokenizer: Annotated[TokenizerConfig, parameter("Tokenizer")] = TokenizerConfig(),
    pretrain: Annotated[PretrainConfig, parameter("Pretrain")] = PretrainConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Make the base model from an earlier run's cleaned documents: from scratch, or from a given
    model."""
    sections = {"base_model": base_model, "tokenizer": tokenizer, "pretrain": pretrain}
    stages = ["base_model" if base_model.source else "tokenizer"]
    stages += ["pretrain"] if pretrain.enabled else []
    earlier = tracking.earlier_run(earlier_run)
    return _run(_pipeline(earlier.experiment, sections, compute), stages, earlier, fresh)


@flow(name="sft", flow_run_name="sft seed {config.seed}", persist_result=False)
@refusals_as_states
def sft(
    config: Annotated[SFTConfig, parameter("Settings")] = SFTConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Fine-tune an earlier run's base model on its demonstrations."""
    return _one(config, compute, earlier_run, fresh)


@flow(name="reward-model", flow_run_name="reward-model seed {config.seed}", persist_result=False)
@refusals_as_states
def reward_model(
    config: Annotated[RewardModelConfig, parameter("Settings")] = RewardModelConfig(),
    card: Annotated[RewardModelCardConfig, parameter("Card")] = RewardModelCardConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Train a reward model on an earlier run's preferences and SFT model, and test it."""
    # The seed is that of the last section.
    sections = {"reward_model_card": card, "reward_model": config}
    stages = ["reward_model", "reward_model_card"]
    earlier = tracking.earlier_run(earlier_run)
    pipeline = _pipeline(earlier.experiment, sections, compute)
    return _run(pipeline, stages, earlier, fresh, name="reward_model")


@flow(name="ppo", flow_run_name="ppo seed {config.seed}", persist_result=False)
@refusals_as_states
def ppo(
    config: Annotated[PPOConfig, parameter("Settings")] = PPOConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Optimise an earlier run's SFT model against its reward model."""
    return _one(config, compute, earlier_run, fresh)


@flow(name="classifier", flow_run_name="classifier seed {config.seed}", persist_result=False)
@refusals_as_states
def classifier(
    config: Annotated[ClassifierConfig, parameter("Settings")] = ClassifierConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Fine-tune a classifier on an earlier run's labelled text."""
    return _one(config, compute, earlier_run, fresh)


@flow(name="benchmarks", flow_run_name="benchmarks", persist_result=False)
@refusals_as_states
def benchmarks(
    config: Annotated[BenchmarksConfig, parameter("Settings")] = BenchmarksConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Put the benchmarks of the field to an earlier run's models."""
    return _one(config, compute, earlier_run, fresh)


@flow(name="evaluate", flow_run_name="evaluate seed {config.seed}", persist_result=False)
@refusals_as_states
def evaluate(
    config: Annotated[EvaluateConfig, parameter("Settings")] = EvaluateConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    fresh: Fresh = False,
) -> Any:
    """Evaluate an earlier run's models, write the report and register the policy as challenger."""
    return _one(config, compute, earlier_run, fresh)


# ------------------------------------------------------------------------------------ helpers


def _one(config: StageConfig, compute: Compute, earlier_run: str, fresh: bool) -> Any:
    earlier = tracking.earlier_run(earlier_run)
    pipeline = _pipeline(earlier.experiment, {config.stage: config}, compute)
    return _run(pipeline, [config.stage], earlier, fresh)


def _pipeline(
    experiment: str, sections: dict[str, Any], compute: Compute = COMPUTE
) -> PipelineConfig:
    """The configuration of a chain of these stages, with the seed that the last of them has."""
    seed = next((s.seed for s in reversed(sections.values()) if hasattr(s, "seed")), 0)
    given = {name: section.model_dump(mode="json") for name, section in sections.items()}
    shared = {"profile": experiment, "seed": seed, "compute": compute.model_dump(mode="json")}
    return validated({**shared, **given})


def _run(
    config: PipelineConfig,
    stages: list[str],
    earlier: tracking.EarlierRun | None,
    fresh: bool,
    name: str = "",
) -> Any:
    """Run ``stages`` and return the figures of the last one; the run is called by ``name`` or as
    the last stage."""
    check(config, stages)
    results: chain.Results = {}
    opponent, refusals = Opponent(config), list[str]()

    def check_before_ppo(
        stage: str, config: PipelineConfig, results: chain.Results
    ) -> PipelineConfig:
        if stage == "ppo":
            check_reward_model(config, run_id, results, is_of_this_run=False)
        return config

    name = f"{(name or stages[-1]).replace('_', '-')} seed {config.seed}"
    with chain.pipeline_run(config, name, results) as run_id:
        if earlier is not None:
            results |= chain.bring(earlier, run_id, _unchanged(stages))
        outputs = chain.run_stages(
            config,
            stages,
            run_id,
            results,
            forced=stages if fresh else (),
            before=check_before_ppo,
            champion=opponent.find,
        )
        if "evaluate" in outputs:
            refusals = publish(config, run_id, outputs, results, opponent)
    if refusals:
        return Completed(name=REFUSED, message="; ".join(refusals))
    return results[stages[-1]].metrics


def _unchanged(stages: Sequence[str]) -> list[str]:
    """The stages whose earlier results hold though ``stages`` are made again."""
    first = list(OUTPUTS).index(stages[0])
    beside = BESIDE.get(stages[0], ())
    return [stage for number, stage in enumerate(OUTPUTS) if number < first or stage in beside]
