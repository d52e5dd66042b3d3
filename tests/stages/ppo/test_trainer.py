"""The trainer on a tiny model: what must not change an update, exact resume, learning."""

from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import nn

from stages.core.chat import encode_prompt
from stages.core.config import LoRAConfig, PPOConfig
from stages.core.errors import UserError
from stages.core.models import adapter_parameters, load_model, load_tokenizer, peft_config
from stages.ppo.rollout import POLICY, VALUE, ValueModel
from stages.ppo.trainer import PPOTrainer

PROMPTS = ["Who are you?", "What is it?", "Tell me something long about the town.", "Where?"]
CPU = torch.device("cpu")


def count_of_vowels(prompts: list[str], completions: list[str]) -> list[float]:
    """A toy reward: the share of vowels in the reply."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


def make_trainer(model_folder: Path, folder: Path, *, micro_batch_size=4, scorer=None, **changes):
    settings = {
        "lora": LoRAConfig(rank=4, alpha=8),
        "total_episodes": 48,
        "batch_size": 8,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "max_completion_length": 12,
        "learning_rate": 3e-3,
        "value_learning_rate": 3e-3,
        "save_updates": 2,
        "seed": 3,
    }
    config = PPOConfig.model_validate(settings | changes)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(model_folder)
    model = get_peft_model(
        load_model(model_folder, CPU), peft_config(config.lora), adapter_name=POLICY
    )
    model.add_adapter(VALUE, peft_config(config.lora))
    head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    return PPOTrainer(
        config,
        model,
        ValueModel(model, head),
        scorer or count_of_vowels,
        tokenizer,
        PROMPTS,
        prompt_ids,
        micro_batch_size,
        folder,
    )


def weights(trainer: PPOTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.policy_parameters + trainer.value_parameters]


def test_the_ratio_is_one_before_the_first_step(tiny_model_folder, tmp_path):
    trainer = make_trainer(tiny_model_folder, tmp_path)
    rollout = trainer._collect_rollout()
    policy, _ = trainer._losses(rollout, list(range(8)), int(rollout.lengths.sum()))
    assert float(policy.ratio) == pytest.approx(1.0, abs=1e-5)
    assert float(policy.clip_fraction) == 0
    # The policy starts as the reference.
    assert float(rollout.kl.abs().max()) < 1e-5


def test_both_adapters_and_the_head_get_gradients_and_nothing_else_does(
    tiny_model_folder, tmp_path
):
    trainer = make_trainer(tiny_model_folder, tmp_path)
    nn.init.ones_(trainer.value_model.head.weight)  # a zero head would pass no gradient on
    rollout = trainer._collect_rollout()
    policy, value = trainer._losses(rollout, list(range(8)), int(rollout.lengths.sum()))
    (policy.loss + value.loss).backward()
    for name in (POLICY, VALUE):
        gradients = [p.grad for p in adapter_parameters(trainer.model, name)]
        assert all(gradient is not None for gradient in gradients)
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0
    trained = {id(p) for p in trainer.policy_parameters + trainer.value_parameters}
    others = [p for p in trainer.model.parameters() if id(p) not in trained]
    assert others
    assert all(p.grad is None for p in others)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_the_micro_batch_size_does_not_change_an_update(
    tiny_model_folder, tmp_path, micro_batch_size
):
    reference = make_trainer(tiny_model_folder, tmp_path / "a", micro_batch_size=4)
    other = make_trainer(tiny_model_folder, tmp_path / "b", micro_batch_size=micro_batch_size)
    for trainer in (reference, other):
        trainer._update(trainer._collect_rollout())
    for a, b in zip(weights(reference), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_padding_does_not_change_the_losses(tiny_model_folder, tmp_path):
    trainer = make_trainer(tiny_model_folder, tmp_path)
    rollout = trainer._collect_rollout()
    num_tokens = int(rollout.lengths.sum())
    together = [part.loss for part in trainer._losses(rollout, list(range(8)), num_tokens)]
    alone = [[part.loss for part in trainer._losses(rollout, [i], num_tokens)] for i in range(8)]
    for index in range(2):
        torch.testing.assert_close(together[index], sum(losses[index] for losses in alone))


def test_in_bfloat16_the_gradient_points_the_same_way(tiny_model_folder, tmp_path, monkeypatch):
    """As on a GPU: CPUs compute in bfloat16, too, though the stages do not ask them to."""

    def gradients():
        trainer = make_trainer(tiny_model_folder, tmp_path)
        with torch.no_grad():  # LoRA's B starts at zero, which would leave A without a gradient
            for parameter in trainer.policy_parameters + trainer.value_parameters:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        policy, value = trainer._losses(rollout, list(range(8)), int(rollout.lengths.sum()))
        (policy.loss + value.loss).backward()
        parts = trainer.policy_parameters, trainer.value_parameters
        return [torch.cat([p.grad.flatten() for p in part]) for part in parts]

    rollout = make_trainer(tiny_model_folder, tmp_path)._collect_rollout()
    generator = torch.Generator().manual_seed(0)
    expected = gradients()
    monkeypatch.setattr("stages.core.models.supports_bf16", lambda device: True)
    generator.manual_seed(0)
    for name, one, other in zip(("policy", "value"), expected, gradients(), strict=True):
        similarity = float(torch.cosine_similarity(one, other, dim=0))
        print(name, similarity)
        assert 0.99 < similarity < 1, name
        assert float(other.norm() / one.norm()) == pytest.approx(1, abs=0.05)


def test_an_update_in_bfloat16_runs_and_stays_near_the_one_in_float32(
    tiny_model_folder, tmp_path, monkeypatch
):
    plain = make_trainer(tiny_model_folder, tmp_path / "float32", total_episodes=8).train()
    monkeypatch.setattr("stages.core.models.supports_bf16", lambda device: True)
    half = make_trainer(tiny_model_folder, tmp_path / "bfloat16", total_episodes=8).train()
    assert half.history[0]["entropy"] == pytest.approx(plain.history[0]["entropy"], rel=0.05)
    assert half.history[0]["kl"] == pytest.approx(0, abs=0.2)


def test_a_resumed_run_equals_the_straight_run_bit_for_bit(tiny_model_folder, tmp_path):
    straight = make_trainer(tiny_model_folder, tmp_path / "straight")
    straight.train()

    class Killed(Exception):
        pass

    calls = 0

    def dies_in_the_fourth_rollout(prompts, completions):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return count_of_vowels(prompts, completions)

    killed = make_trainer(
        tiny_model_folder, tmp_path / "resumed", scorer=dies_in_the_fourth_rollout
    )
    with pytest.raises(Killed):
        killed.train()
    torch.rand(17)  # whatever else drew random numbers meanwhile
    resumed = make_trainer(tiny_model_folder, tmp_path / "resumed")
    resumed.train()
    assert resumed.progress == straight.progress
    for a, b in zip(weights(straight), weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_cut_short_is_not_taken_for_one(tiny_model_folder, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "update-000004.part").write_bytes(b"half")
    trainer = make_trainer(tiny_model_folder, folder, total_episodes=8)
    trainer.train()
    assert trainer.progress.num_updates == 1


@pytest.mark.slow
def test_the_reward_rises(tiny_model_folder, tmp_path):
    trainer = make_trainer(
        tiny_model_folder,
        tmp_path,
        total_episodes=64 * 30,
        batch_size=64,
        micro_batch_size=64,
        kl_coef=0.0,
        missing_eos_penalty=0.0,
        learning_rate=1e-2,
        kl_ceiling=1e6,
    )
    history = trainer.train().history
    first = sum(row["score"] for row in history[:3]) / 3
    last = sum(row["score"] for row in history[-3:]) / 3
    assert last > first + 0.15, (first, last)
    assert history[-1]["kl"] > 1


def test_a_kl_above_the_ceiling_stops_the_run_and_keeps_the_policy_before(
    tiny_model_folder, tmp_path
):
    trainer = make_trainer(
        tiny_model_folder, tmp_path, learning_rate=0.05, kl_ceiling=0.05, kl_coef=0.0
    )
    progress = trainer.train()
    assert progress.stopped_by_kl
    assert progress.num_updates < 6
    for parameter, kept in zip(trainer.policy_parameters, trainer.accepted_policy, strict=True):
        assert torch.equal(parameter, kept)
    assert all(row["kl"] <= 0.05 for row in progress.history)


def test_a_gradient_that_is_not_finite_ends_the_run_with_the_setting_to_lower(
    tiny_model_folder, tmp_path
):
    trainer = make_trainer(
        tiny_model_folder,
        tmp_path,
        scorer=lambda prompts, completions: [float("nan")] * len(completions),
    )
    with pytest.raises(UserError, match=r"update 1; lower ppo\.learning_rate"):
        trainer.train()


def test_a_reply_without_eos_is_penalised(tiny_model_folder, tmp_path):
    trainer = make_trainer(
        tiny_model_folder,
        tmp_path,
        scorer=lambda prompts, completions: [0.25] * len(completions),
        missing_eos_penalty=0.75,
        kl_coef=0.0,
    )
    rollout = trainer._collect_rollout()
    assert not rollout.has_eos.all()
    expected = torch.where(rollout.has_eos, 0.25, -0.5)
    torch.testing.assert_close(rollout.rewards.sum(-1), expected)


def test_each_pass_over_the_prompts_takes_every_prompt_once(tiny_model_folder, tmp_path):
    trainer = make_trainer(tiny_model_folder, tmp_path)
    rounds = [[trainer._prompt_index(4 * round_ + i) for i in range(4)] for round_ in range(6)]
    assert all(sorted(indices) == [0, 1, 2, 3] for indices in rounds)
    assert len({tuple(indices) for indices in rounds}) > 1
