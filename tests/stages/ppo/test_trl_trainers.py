"""RLOO, GRPO and DPO through TRL: our tokens and rewards, exact resume, learning, refusals."""

import copy
import json

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS
from stages.core.chat import decode_completion, encode_completion, encode_prompt
from stages.core.config import Compute, LoRAConfig, PPOConfig
from stages.core.errors import UserError
from stages.core.models import active_adapter, adapter_parameters, load_model, load_tokenizer
from stages.core.tracking import stage_runs
from stages.ppo import trl_trainers
from stages.ppo.actor_critic import POLICY
from stages.ppo.trl_trainers import train_with_trl

CPU = torch.device("cpu")
ALGORITHMS = ("rloo", "grpo", "dpo")
PROMPTS = [
    "Who are you?",
    "Say <|im_end|> and <|im_start|>user, will you?",  # text, not the end of a turn
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me something long about the town."},
    ],
]
PAIRS = [
    {"prompt": prompt, "chosen": f"In Mill Street {n}.", "rejected": "Go <|im_end|> now."}
    for prompt in PROMPTS
    for n in range(2)
]


def share_of_vowels(prompts, completions):
    """A toy reward."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


def make_config(algorithm, **changes):
    settings = {
        "algorithm": algorithm,
        "lora": LoRAConfig(rank=4, alpha=8),
        "frozen_layer_share": 0.0,
        "total_episodes": 16,
        "batch_size": 8,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "max_completion_length": 12,
        "learning_rate": 3e-3,
        "warmup_share": 0.0,
        "save_updates": 2,
        "seed": 3,
    }
    return PPOConfig.model_validate(settings | changes)


def run(model, out_dir, algorithm, *, scorer=share_of_vowels, micro_batch_size=4, **changes):
    """Train on a model folder, or on a model and its tokenizer."""
    if not isinstance(model, tuple):
        model = load_model(model, CPU), load_tokenizer(model)
    prompts, pairs = changes.pop("prompts", PROMPTS), changes.pop("pairs", PAIRS)
    compute = Compute(device="cpu", micro_batch_size=micro_batch_size)
    config = make_config(algorithm, **changes)
    return train_with_trl(config, compute, *model, scorer, prompts, pairs, out_dir)


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(model):
    return torch.cat([p.detach().flatten() for p in adapter_parameters(model, POLICY)])


@pytest.fixture
def rollouts(monkeypatch):
    """What TRL made of each batch of replies, before it shuffled them."""
    caught = []
    for trainer in (trl_trainers._RLOO, trl_trainers._GRPO):

        def catch(self, inputs, original=trainer._generate_and_score_completions):
            caught.append(original(self, inputs))
            return caught[-1]

        monkeypatch.setattr(trainer, "_generate_and_score_completions", catch)
    return caught


def unpadded(ids, mask):
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


# ------------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_updates_change_the_adapter_and_nothing_else(tiny_model_folder, tmp_path, algorithm):
    model, tokenizer = load_model(tiny_model_folder, CPU), load_tokenizer(tiny_model_folder)
    model.generation_config.top_p = 0.9
    configs = copy.deepcopy([model.config.to_dict(), model.generation_config.to_dict()])
    tokenizer.pad_token = None
    ids = torch.tensor([encode_prompt(tokenizer, PROMPTS[0])])
    with torch.no_grad():
        before = model(ids).logits
    policy, history = run((model, tokenizer), tmp_path, algorithm)
    with torch.no_grad():
        after = policy(ids).logits
        with active_adapter(policy, None):
            assert torch.equal(policy(ids).logits, before)
    assert not torch.allclose(after, before)
    assert list(policy.peft_config) == [POLICY]
    assert not policy.training
    assert [model.config.to_dict(), model.generation_config.to_dict()] == configs
    assert tokenizer.pad_token is None
    assert "forward" not in vars(model)
    assert [row["episodes"] for row in history] == ([] if algorithm == "dpo" else [8, 16])


def test_a_row_of_the_history_is_that_of_ppo(tiny_model_folder, tmp_path, rollouts):
    _, history = run(tiny_model_folder, tmp_path, "rloo", missing_eos_penalty=0.5)
    tokenizer = load_tokenizer(tiny_model_folder)
    for number, (row, rollout) in enumerate(zip(history, rollouts, strict=True)):
        replies = unpadded(rollout["completion_ids"], rollout["completion_mask"])
        scores = share_of_vowels([], [decode_completion(tokenizer, ids) for ids in replies])
        assert list(row) == ["update", "episodes", "score", "kl", "length", "eos_rate", "entropy"]
        assert row["update"] == number + 1
        assert row["score"] == pytest.approx(sum(scores) / 8)
        assert row["length"] == sum(map(len, replies)) / 8
        assert row["eos_rate"] == sum(ids[-1] == tokenizer.eos_token_id for ids in replies) / 8


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
def test_the_policy_starts_as_the_reference(tiny_model_folder, tmp_path, algorithm, kl_coef):
    steps = {"num_mini_batches": 1, "num_ppo_epochs": 1, "total_episodes": 24}
    _, history = run(tiny_model_folder, tmp_path, algorithm, kl_coef=kl_coef, **steps)
    assert history[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert abs(history[-1]["kl"]) > 1e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frozen_layers_get_no_adapter(tiny_model_folder, tmp_path, algorithm):
    policy, _ = run(tiny_model_folder, tmp_path, algorithm, frozen_layer_share=0.5)
    adapted = {name for name, _ in policy.named_parameters() if f".{POLICY}." in name}
    assert adapted
    assert all(".layers.1." in name for name in adapted)


# ---------------------------------------------------------------------------- tokens and rewards


@pytest.mark.parametrize("template", ["own", None])
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_sampled_tokens_are_ours(tiny_model_folder, tmp_path, rollouts, algorithm, template):
    tokenizer = load_tokenizer(tiny_model_folder)
    if template is None:
        tokenizer.chat_template = None
    calls = []

    def scorer(prompts, completions):
        calls.append((list(prompts), list(completions)))
        return share_of_vowels(prompts, completions)

    model = load_model(tiny_model_folder, CPU)
    # Knobs of the model's own that would change what is sampled.
    model.generation_config = GenerationConfig(top_k=1, eos_token_id=list(range(400)))
    run((model, tokenizer), tmp_path, algorithm, scorer=scorer)
    assert len(calls) == len(rollouts) == 2
    for (prompts, completions), rollout in zip(calls, rollouts, strict=True):
        assert all(prompt in PROMPTS for prompt in prompts)
        asked = unpadded(rollout["prompt_ids"], rollout["prompt_mask"])
        assert asked == [encode_prompt(tokenizer, prompt) for prompt in prompts]
        replies = unpadded(rollout["completion_ids"], rollout["completion_mask"])
        assert completions == [decode_completion(tokenizer, ids) for ids in replies]
        assert len(set(completions[:4])) > 1
        assert all(prompt == prompts[0] for prompt in prompts[:4])
        assert all(tokenizer.eos_token_id not in ids[:-1] for ids in replies)
        assert all(len(ids) == 12 or ids[-1] == tokenizer.eos_token_id for ids in replies)


def test_the_pairs_tokens_are_ours(tiny_model_folder, tmp_path, monkeypatch):
    batches = []

    def catch(self, model, inputs, *args, original=trl_trainers._DPO._compute_loss):
        batches.append(inputs)
        return original(self, model, inputs, *args)

    monkeypatch.setattr(trl_trainers._DPO, "_compute_loss", catch)
    run(tiny_model_folder, tmp_path, "dpo", total_episodes=24, micro_batch_size=2)
    tokenizer = load_tokenizer(tiny_model_folder)
    expected = [
        [
            (encode_prompt(tokenizer, pair["prompt"]), encode_completion(tokenizer, pair[side]))
            for side in ("chosen", "rejected")
        ]
        for pair in PAIRS
    ]
    seen = []
    for batch in batches:
        prompts = unpadded(
            batch["input_ids"], batch["attention_mask"] * (1 - batch["completion_mask"])
        )
        replies = unpadded(batch["input_ids"], batch["completion_mask"])
        sides = list(zip(prompts, replies, strict=True))
        half = len(sides) // 2  # all chosen, then all rejected
        seen += [list(pair) for pair in zip(sides[:half], sides[half:], strict=True)]
    assert len(seen) == 24
    # Each pass takes every pair once, in another order.
    numbers = [expected.index(pair) for pair in seen]
    passes = [numbers[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(order) == list(range(6)) for order in passes)
    assert len({tuple(order) for order in passes}) > 1


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_advantages_follow_the_papers(tiny_model_folder, tmp_path, rollouts, algorithm):
    def scorer(prompts, completions):
        return [len(text) - 80.0 for text in completions]

    tokenizer = load_tokenizer(tiny_model_folder)
    run(
        tiny_model_folder,
        tmp_path,
        algorithm,
        scorer=scorer,
        total_episodes=8,
        max_completion_length=40,
        clip_score=5.0,
        missing_eos_penalty=7.0,
    )
    replies = unpadded(rollouts[0]["completion_ids"], rollouts[0]["completion_mask"])
    scores = torch.tensor(scorer([], [decode_completion(tokenizer, ids) for ids in replies]))
    ended = torch.tensor([ids[-1] == tokenizer.eos_token_id for ids in replies])
    rewards = (scores.clamp(-5, 5) - 7 * ~ended).reshape(-1, 4)
    if algorithm == "rloo":
        expected = rewards - (rewards.sum(-1, keepdim=True) - rewards) / 3
    else:
        expected = (rewards - rewards.mean(-1, keepdim=True)) / (
            rewards.std(-1, keepdim=True) + 1e-4
        )
    torch.testing.assert_close(rollouts[0]["advantages"].reshape(-1, 4), expected)
    assert (expected != 0).any()
    assert (scores.abs() > 5).any()


def test_learned_positions_do_not_count_the_padding(tiny_model_folder, tmp_path, rollouts):
    tokenizer = load_tokenizer(tiny_model_folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128)
    config.initializer_range = 0.3
    model = GPT2LMHeadModel(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    run((model, tokenizer), tmp_path, "rloo", total_episodes=8, learning_rate=1e-9)
    rollout = rollouts[0]
    assert not rollout["prompt_mask"].all()
    prompts = unpadded(rollout["prompt_ids"], rollout["prompt_mask"])
    replies = unpadded(rollout["completion_ids"], rollout["completion_mask"])
    for prompt, reply, logprob in zip(prompts, replies, rollout["old_logps"], strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(reply)[:, None]).sum()
        assert float(logprob) == pytest.approx(float(expected), abs=1e-3)


# -------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("changes", [{"micro_batch_size": 1}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_saves_memory_does_not_change_an_update(
    tiny_model_folder, tmp_path, algorithm, changes
):
    plain, _ = run(tiny_model_folder, tmp_path / "a", algorithm, total_episodes=8)
    saving, _ = run(tiny_model_folder, tmp_path / "b", algorithm, total_episodes=8, **changes)
    torch.testing.assert_close(weights(saving), weights(plain), rtol=1e-3, atol=2e-4)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in saving.modules())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_equals_the_straight_run_bit_for_bit(
    tiny_model_folder, tmp_path, algorithm, monkeypatch
):
    settings = {"total_episodes": 24, "num_ppo_epochs": 1}
    straight, history = run(tiny_model_folder, tmp_path / "a", algorithm, **settings)

    class Killed(Exception):
        pass

    def die(figures, step):
        if step == 24:  # one update after the checkpoint
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "log_metrics", die)
        with pytest.raises(Killed):
            run(tiny_model_folder, tmp_path / "b", algorithm, **settings)
    torch.rand(17)  # whatever else drew random numbers meanwhile
    resumed, resumed_history = run(tiny_model_folder, tmp_path / "b", algorithm, **settings)
    assert resumed_history == history
    assert len(history) == (0 if algorithm == "dpo" else 3)
    assert torch.equal(weights(resumed), weights(straight))


def test_a_run_that_was_killed_after_its_last_update_only_finishes(
    tiny_model_folder, tmp_path, monkeypatch
):
    monkeypatch.setitem(stage_runs._current, "metrics_path", tmp_path / "metrics.jsonl")
    finished, history = run(tiny_model_folder, tmp_path, "rloo")
    logged = read_metrics(tmp_path)
    again, again_history = run(tiny_model_folder, tmp_path, "rloo", scorer=None)
    assert again_history == history
    assert torch.equal(weights(again), weights(finished))
    assert read_metrics(tmp_path) == logged
    assert [row["step"] for row in logged] == [8, 16]


def test_another_seed_gives_another_policy(tiny_model_folder, tmp_path):
    """So that the comparisons above can fail."""
    policies = [run(tiny_model_folder, tmp_path / str(s), "rloo", seed=s)[0] for s in (0, 1)]
    assert not torch.equal(*map(weights, policies))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_update_is_reported(tiny_model_folder, tmp_path, algorithm, monkeypatch, capsys):
    monkeypatch.setitem(stage_runs._current, "metrics_path", tmp_path / "metrics.jsonl")
    monkeypatch.setenv("RLHF_PARENT_PID", "1")
    tables = []
    monkeypatch.setattr(tracking, "log_table", lambda rows, name: tables.append(rows))
    run(tiny_model_folder, tmp_path, algorithm)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [8, 16]
    assert all("loss" in row for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:24] for line in lines if line.startswith("update")] == [
        "update 1/2  episodes 8  ",
        "update 2/2  episodes 16 ",
    ]
    events = [json.loads(line[len("::progress ") :]) for line in lines if line.startswith("::p")]
    assert [(event["step"], event["total"]) for event in events] == [(1, 2), (2, 2)]
    assert not any(line.startswith("step") for line in lines)
    if algorithm != "dpo":
        assert [len(table) for table in tables] == [2]  # one reply to each prompt


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_the_reward_rises(tiny_model_folder, tmp_path, algorithm):
    _, history = run(
        tiny_model_folder,
        tmp_path,
        algorithm,
        total_episodes=64 * 30,
        batch_size=64,
        micro_batch_size=64,
        num_mini_batches=1,
        num_ppo_epochs=1,
        num_generations=8,
        kl_coef=0.0,
        missing_eos_penalty=0.0,
        learning_rate=3e-2,
        save_updates=1000,
    )
    first = sum(row["score"] for row in history[:3]) / 3
    last = sum(row["score"] for row in history[-3:]) / 3
    assert last > first + 0.15, (first, last)
    assert history[-1]["kl"] > 1


@pytest.mark.slow
def test_the_preference_margin_rises(tiny_model_folder, tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(tracking, "log_metrics", lambda figures, step: rows.append(figures))
    run(tiny_model_folder, tmp_path, "dpo", total_episodes=8 * 20, save_updates=1000)
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"] + 1
    assert rows[-1]["rewards/accuracies"] == 1


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("rloo", {"num_generations": 3}, r"ppo.batch_size \(8\) must be divisible by ppo.num_gen"),
        ("grpo", {"finetuning": "full"}, r"ppo.finetuning = full has no effect with .*=grpo"),
        ("dpo", {"entropy_coef": 0.1}, r"ppo.entropy_coef = 0.1 has no effect .*entropy_coef=0"),
        ("rloo", {"kl_estimator": "k3"}, r"set ppo.kl_estimator=k1"),
        ("grpo", {"kl_target": 3.0}, r"set ppo.kl_target=0"),
        (
            "rloo",
            {"scorers": {"oracle": "a.py:f"}, "guard": {"scorer": "oracle"}},
            r"ppo.guard.scorer = oracle has no effect .*; set ppo.guard.scorer=$",
        ),
        ("dpo", {"pairs": []}, r"needs preference pairs; set collect.preferences.paths"),
        (
            "dpo",
            {"max_prompt_length": 40, "max_completion_length": 10, "max_over_length_share": 0.2},
            r"4 of 6 preference pairs exceed 50 tokens \(ppo.max_prompt_length",
        ),
    ],
)
def test_what_trl_cannot_do_is_refused_with_the_setting(
    tiny_model_folder, tmp_path, algorithm, changes, message
):
    with pytest.raises(UserError, match=message):
        run(tiny_model_folder, tmp_path, algorithm, **changes)
    assert not (tmp_path / CHECKPOINTS).exists()


def test_over_long_pairs_are_dropped_and_counted(tiny_model_folder, tmp_path, capsys):
    long = {**PAIRS[0], "rejected": "Go away now. " * 20}
    run(tiny_model_folder, tmp_path, "dpo", pairs=[*PAIRS, long], max_prompt_length=80)
    assert "1 of 7 preference pairs over-long, dropped" in capsys.readouterr().out


def test_a_score_that_is_no_number_ends_the_run(tiny_model_folder, tmp_path):
    def scorer(prompts, completions):
        return [float("nan"), *[0.5] * (len(completions) - 1)]

    with pytest.raises(UserError, match=r"a score is not a number; look at the reward model"):
        run(tiny_model_folder, tmp_path, "rloo", scorer=scorer)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("learning_rate", [1e4, 1e30])
def test_a_loss_that_is_not_finite_ends_the_run_with_the_setting_to_lower(
    tiny_model_folder, tmp_path, algorithm, learning_rate
):
    steps = {"num_mini_batches": 1, "num_ppo_epochs": 1}
    with pytest.raises(UserError, match=r"became nan at update 2; lower ppo\.learning_rate"):
        run(tiny_model_folder, tmp_path, algorithm, learning_rate=learning_rate, **steps)
