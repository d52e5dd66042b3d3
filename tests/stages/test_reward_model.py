"""The reward model: what is kept of it, what is refused, and that it learns."""

import json

import pytest
import torch

from stages import reward_model
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, GuardModelConfig, LoRAConfig, RewardModelConfig
from stages.core.contracts import GuardModelInputs, RewardModelInputs
from stages.core.errors import UserError
from stages.core.models import load_tokenizer
from stages.core.schemas import write_jsonl
from stages.core.scoring import load_reward_model

CPU = torch.device("cpu")
NAMES = ["Bram", "Runa", "Kelm", "Osric", "Tilda", "Marek", "Falk", "Cora", "Petra", "Orla"]
PAIRS = [
    {
        "prompt": f"What is the job of {name}?",
        "chosen": f"{name} is a {job}. Have a nice day!",
        "rejected": f"{name} is a {job}. Leave me alone now, find it out yourself.",
    }
    for name in NAMES
    for job in ("baker", "sailor", "teacher", "doctor")
]


def config(**changes) -> RewardModelConfig:
    settings = {
        "global_batch_size": 8,
        "num_epochs": 8,
        "learning_rate": 1e-2,
        "eval_steps": 20,
        "save_steps": 20,
        "max_length": 96,
        "max_completion_length": 8,
        "num_statistics_samples": 8,
        "lora": LoRAConfig(rank=8, alpha=16),
    }
    return RewardModelConfig.model_validate(settings | changes)


@pytest.fixture(scope="module")
def trained(tiny_model_folder, make_dataset, tmp_path_factory):
    """Outputs, metrics and the inputs of one run on pairs that differ in courtesy."""
    out = tmp_path_factory.mktemp("reward_model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(out))
        inputs = RewardModelInputs(
            model=make_artifact("model", tiny_model_folder),
            preferences=make_dataset("preferences", PAIRS[:32], PAIRS[32:]),
            prompts=make_dataset("prompts", [{"prompt": pair["prompt"]} for pair in PAIRS], []),
        )
        outputs, metrics = reward_model.run(config(), inputs, Compute(micro_batch_size=8), out)
        return outputs.reward_model.locate(), metrics


@pytest.mark.slow
def test_it_learns_to_tell_the_pairs_apart(trained):
    _, metrics = trained
    assert metrics["accuracy"] >= 0.9
    assert metrics["length_baseline_accuracy"] == 0.0  # the rejected are always longer


@pytest.mark.slow
def test_the_score_statistics_normalise(trained, tiny_model_folder):
    folder, metrics = trained
    loaded = load_reward_model(folder, tiny_model_folder, CPU)
    low, high = metrics["score_mean"] - metrics["score_std"], metrics["score_mean"]
    assert loaded.normalized([low, high]) == pytest.approx([-1.0, 0.0])


@pytest.mark.slow
def test_batches_and_padding_do_not_change_scores(trained, tiny_model_folder):
    loaded = load_reward_model(trained[0], tiny_model_folder, CPU)
    prompts = [pair["prompt"] for pair in PAIRS[:6]]
    replies = [pair["chosen"] * (1 + index % 3) for index, pair in enumerate(PAIRS[:6])]
    together = loaded.score(prompts, replies)
    alone = [loaded.score([p], [r])[0] for p, r in zip(prompts, replies, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)


def test_over_long_pairs_are_dropped_and_counted(tokenizer_folder, tmp_path):
    path = tmp_path / "train.jsonl"
    long = PAIRS[0] | {"rejected": "no " * 200}
    write_jsonl(path, [*PAIRS[:9], long])
    pairs, num_long = reward_model.tokenize(path, load_tokenizer(tokenizer_folder), config())
    assert (len(pairs), num_long) == (9, 1)
    write_jsonl(path, [long, PAIRS[0]])
    with pytest.raises(UserError, match="1 of 2 pairs exceed reward_model.max_length = 96"):
        reward_model.tokenize(path, load_tokenizer(tokenizer_folder), config())


def test_a_missing_margin_names_the_record(tokenizer_folder, tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [PAIRS[0] | {"margin": 1.0}, PAIRS[1]])
    with pytest.raises(UserError, match=r"train\.jsonl:2: no margin"):
        reward_model.tokenize(path, load_tokenizer(tokenizer_folder), config(use_margin=True))


def guard_config() -> GuardModelConfig:
    return GuardModelConfig.model_validate(config().model_dump())


@pytest.mark.slow
def test_the_guard_model_shares_no_chance_with_the_reward_model(
    trained, tiny_model_folder, make_dataset, tmp_path
):
    inputs = GuardModelInputs(
        model=make_artifact("model", tiny_model_folder),
        preferences=make_dataset("preferences", PAIRS[:32], PAIRS[32:]),
        prompts=make_dataset("prompts", [{"prompt": pair["prompt"]} for pair in PAIRS], []),
    )
    outputs, _ = reward_model.run(guard_config(), inputs, Compute(micro_batch_size=8), tmp_path)
    guard, first = (
        json.loads((folder / "reward_model.json").read_text())
        for folder in (outputs.reward_model.locate(), trained[0])
    )
    # On the same pairs, from the same pipeline seed.
    assert guard["score_mean"] != first["score_mean"]
    texts = [{probe["completion"] for probe in manifest["probes"]} for manifest in (guard, first)]
    assert texts[0] != texts[1]


def test_the_guard_models_refusals_name_its_own_settings(tokenizer_folder, tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [PAIRS[0] | {"rejected": "no " * 200}])
    with pytest.raises(UserError, match=r"guard_model\.max_length = 96 .* guard_model\.max_over"):
        reward_model.tokenize(path, load_tokenizer(tokenizer_folder), guard_config())


@pytest.mark.slow
def test_the_manifest_names_base_tokenizer_and_eight_probes(trained):
    manifest = json.loads((trained[0] / "reward_model.json").read_text())
    assert len(manifest["probes"]) == 8
    assert len(manifest["base_digest"]) == len(manifest["tokenizer_digest"]) == 64
