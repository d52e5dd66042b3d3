"""What the stage sample_pairs gets: an earlier run's models, prompts, and what was asked before."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger

from flows import chain
from flows.plan import OUTPUTS
from stages.core import tracking
from stages.core.artifacts import (
    Artifact,
    data_root,
    json_digest,
    make_artifact,
    write_atomically,
)
from stages.core.config import Frozen, ModelName
from stages.core.contracts import (
    Datasets,
    PPOOutputs,
    RewardModelOutputs,
    SamplePairsInputs,
    SFTOutputs,
)
from stages.core.errors import UserError
from stages.core.schemas import write_jsonl

Outputs = TypeVar("Outputs", bound=Frozen)


class Asked(Frozen):
    """Who replies to what."""

    earlier_run: str = ""
    """The run whose models and prompts are taken."""
    models: tuple[ModelName, ...] = ("policy", "sft")
    """Whose replies are compared."""
    prompts: tuple[str, ...] = ()
    """Files with prompts; none, and no traffic: the run's own."""
    traffic: str = ""
    """MLflow experiment with an application's traces."""
    gold: tuple[str, ...] = ()
    """Files of preferences whose answer is beyond doubt."""


def stage_inputs(
    asked: Asked,
    earlier: tracking.EarlierRun,
    run_id: str,
    prompts: Sequence[Path],
    gold: Sequence[Path],
) -> SamplePairsInputs:
    """All but the pairs that were asked about before.

    Args:
        run_id: under which the earlier run's stages are shown.
        prompts, gold: the files that ``asked`` names.

    Raises:
        UserError: a run lacks a stage, its result is gone, or the traffic holds no prompt.
    """
    models = {name: _model(name, earlier, run_id) for name in dict.fromkeys(asked.models)}
    reward_model = _reward_model("reward_model", earlier, run_id)
    return SamplePairsInputs(
        models=_different(models),
        prompts=_prompts(asked, prompts, earlier, run_id),
        base=_of_run(SFTOutputs, earlier, run_id, "sft").model if reward_model else None,
        reward_model=reward_model,
        guard_model=_reward_model("guard_model", earlier, run_id),
        gold=tuple(make_artifact("source", path) for path in gold),
    )


def known_pairs(experiment: str) -> Artifact | None:
    """A file of the ids of all pairs that people were ever asked about; None where there are
    none."""
    ids = sorted(pair.pair_id for pair in tracking.published_pairs(experiment))
    if not ids:
        return None
    path = _cache() / f"known-{json_digest(ids)[:12]}.txt"
    write_atomically(path, "\n".join(ids) + "\n")
    return make_artifact("pairs", path)


# ------------------------------------------------------------------------------------ helpers


def _of_run(kind: type[Outputs], earlier: tracking.EarlierRun, run_id: str, stage: str) -> Outputs:
    """What a stage of an earlier run returned, brought to this machine."""
    brought = chain.bring(earlier, run_id, [stage])
    if stage not in brought:
        there = ", ".join(name for name in OUTPUTS if name in earlier.results) or "none"
        raise UserError(
            f"sample-pairs needs the result of stage {stage}, which run {earlier.name!r} does not "
            f"have (its finished stages: {there}); name a run that has it, or an alias such as "
            "rlhf-policy@champion, as earlier_run"
        )
    return kind.model_validate(brought[stage].outputs)


def _model(name: ModelName, earlier: tracking.EarlierRun, run_id: str) -> Artifact:
    if name == "sft":
        return _of_run(SFTOutputs, earlier, run_id, "sft").model
    if name != "policy":
        earlier = tracking.earlier_run(f"{tracking.POLICY}@{name}")
    return _of_run(PPOOutputs, earlier, run_id, "ppo").model


def _reward_model(stage: str, earlier: tracking.EarlierRun, run_id: str) -> Artifact | None:
    if stage not in earlier.results:
        return None
    return _of_run(RewardModelOutputs, earlier, run_id, stage).reward_model


def _different(models: dict[ModelName, Artifact]) -> dict[str, Artifact]:
    """Each model once: there is nothing to compare between a model and itself."""
    by_digest: dict[str, str] = {}
    for name, model in models.items():
        other = by_digest.setdefault(model.digest, name)
        if other != name:
            get_run_logger().info("%s is the same model as %s, and is left out", name, other)
    return {name: models[name] for name in models if name in by_digest.values()}


def _prompts(
    asked: Asked, files: Iterable[Path], earlier: tracking.EarlierRun, run_id: str
) -> tuple[Artifact, ...]:
    given = [make_artifact("prompts", path) for path in files]
    if asked.traffic:
        rows = [{"prompt": prompt} for prompt in tracking.traffic_prompts(asked.traffic)]
        path = _cache() / f"traffic-{json_digest(rows)[:12]}.jsonl"
        write_jsonl(path, rows)
        given.append(make_artifact("prompts", path))
    if given:
        return tuple(given)
    data = _of_run(Datasets, earlier, run_id, "clean").prompts
    if data is None:
        raise UserError(
            f"run {earlier.name!r} has no prompts: give files with prompts, or the experiment of "
            "logged traffic"
        )
    return (make_artifact("prompts", data.locate() / "train.jsonl"),)


def _cache() -> Path:
    folder = data_root() / "cache" / "feedback"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
