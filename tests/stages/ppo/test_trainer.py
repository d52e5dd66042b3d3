"""The trainer on a tiny model: what must not change an update, exact resume, learning."""

import json
import math
import re

import pytest
import torch
from torch import nn

from stages.core.errors import UserError
from stages.core.logprobs import MAX_LOGITS
from stages.core.models import adapter_parameters
from stages.core.tracking import stage_runs
from stages.ppo.actor_critic import POLICY, VALUE
from stages.ppo.rollout import FrozenStates

BOTH = pytest.mark.parametrize("finetuning", ["lora", "full"])


def weights(trainer):
    actor_critic = trainer.actor_critic
    parameters = actor_critic.policy_parameters + actor_critic.value_parameters
    return [parameter.detach().clone() for parameter in parameters]


def assert_close(one, other, **tolerance):
    for a, b in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def rollout_of(trainer):
    return trainer._rate(trainer._sample_replies())


def gradients(trainer, rollout, frozen):
    """Of one mini-batch with all replies, before clipping: the policy's and the value model's."""
    ac = trainer.actor_critic
    for parameter in ac.policy_parameters + ac.value_parameters:
        parameter.grad = None
    trainer._backward(
        rollout, frozen, list(range(len(rollout.replies))), int(rollout.lengths.sum())
    )
    return [
        torch.cat([p.grad.flatten() for p in part])
        for part in (ac.policy_parameters, ac.value_parameters)
    ]


def stir(trainer):
    """LoRA's B starts at zero, which leaves A without a gradient, and so does a zero head."""
    generator = torch.Generator().manual_seed(0)
    ac = trainer.actor_critic
    with torch.no_grad():
        for parameter in ac.policy_parameters + ac.value_parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


# --------------------------------------------------------------------------------------- one update


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_ratio_is_one_before_the_first_step(make_trainer, finetuning, temperature):
    trainer = make_trainer(finetuning=finetuning, temperature=temperature)
    rollout, frozen = rollout_of(trainer)
    figures = trainer._backward(rollout, frozen, list(range(8)), int(rollout.lengths.sum()))
    assert float(figures["val/ratio"]) == pytest.approx(1.0, abs=1e-5)
    assert float(figures["policy/clipfrac_avg"]) == 0
    # The policy starts as the reference.
    assert float(rollout.kl.abs().max()) < 1e-4


@BOTH
def test_the_gradient_is_that_of_the_formulas_on_one_reply_after_another(make_trainer, finetuning):
    """Without batches, padding, caches or trimmed layers: log-probabilities out of plain forward
    passes, losses as the papers write them, the mean over all tokens."""
    settings = {"temperature": 0.7, "entropy_coef": 0.1, "vf_coef": 0.3, "cliprange": 0.05}
    trainer = make_trainer(finetuning=finetuning, **settings)
    rollout, frozen = rollout_of(trainer)
    stir(trainer)  # so that ratios leave 1 and some are clipped
    found = gradients(trainer, rollout, frozen)
    ac = trainer.actor_critic
    trainer.optimizer.zero_grad()
    num_clipped = 0
    for row, reply in enumerate(rollout.replies):
        ids = torch.tensor([reply.prompt_ids + reply.completion_ids])
        states = slice(len(reply.prompt_ids) - 1, -1)
        count = len(reply.completion_ids)
        with ac.policy.active() as model:
            table = (model(ids).logits[0, states] / 0.7).log_softmax(-1)
            chosen = table.gather(-1, torch.tensor(reply.completion_ids)[:, None])[:, 0]
            ratio = (chosen - rollout.logprobs[row, :count]).exp()
            advantage = rollout.advantages[row, :count]
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.95, 1.05) * advantage)
            entropy = -(table.exp() * table).sum(-1)
            (-(surrogate + 0.1 * entropy).sum()).backward()
            num_clipped += int(((ratio - 1).abs() > 0.05).sum())
        with ac.value.active() as model:
            hidden = model.get_decoder()(ids).last_hidden_state[0, states]
            values = ac.value_head(hidden)[:, 0]
            old, returns = rollout.values[row, :count], rollout.returns[row, :count]
            near = old + (values - old).clamp(-0.2, 0.2)
            errors = torch.maximum((values - returns) ** 2, (near - returns) ** 2)
            (0.3 * 0.5 * errors.sum()).backward()
    assert num_clipped > 5
    num_tokens = float(rollout.lengths.sum())
    for part, gradient in zip((ac.policy_parameters, ac.value_parameters), found, strict=True):
        expected = torch.cat([p.grad.flatten() for p in part]) / num_tokens
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_a_steps_figures_are_means_over_its_own_mini_batch(make_trainer):
    trainer = make_trainer()
    figures = trainer._step(*rollout_of(trainer), torch.tensor([0, 3, 5]))
    assert figures["val/ratio"] == pytest.approx(1.0, abs=1e-5)


def test_the_learning_rate_rises_over_the_warm_up_then_falls_and_never_is_zero(make_trainer):
    trainer = make_trainer(warmup_share=0.3, learning_rate=0.01)
    rates = []
    for _ in range(6):
        rates.append(trainer.scheduler.get_last_lr()[0] / 0.01)
        trainer.progress.num_updates += 1
        trainer._update(*rollout_of(trainer))
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 3 / 4, 2 / 4, 1 / 4])


@BOTH
def test_all_that_is_trained_gets_gradients_and_nothing_else_does(make_trainer, finetuning):
    trainer = make_trainer(finetuning=finetuning)
    stir(trainer)
    rollout, frozen = rollout_of(trainer)
    assert all(float(part.abs().sum()) > 0 for part in gradients(trainer, rollout, frozen))
    ac = trainer.actor_critic
    trained = {id(p) for p in ac.policy_parameters + ac.value_parameters}
    for parameter in ac.policy_parameters + ac.value_parameters:
        assert float(parameter.grad.abs().sum()) > 0
    models = (ac.policy.model, ac.value.model, ac.reference.model)
    others = [p for model in models for p in model.parameters() if id(p) not in trained]
    assert others
    assert all(p.grad is None for p in others)


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
def test_the_micro_batch_size_does_not_change_an_update(make_trainer, max_tokens):
    """With one token there is one row a micro batch, so padding does not matter, either."""
    reference = make_trainer("a")
    other = make_trainer("b", max_tokens=max_tokens, max_sampled=max_tokens)
    for trainer in (reference, other):
        trainer._update(*rollout_of(trainer))
    assert_close(reference, other, rtol=1e-3, atol=2e-5)


def test_micro_batches_weigh_their_tokens_and_not_their_number(make_trainer):
    trainer = make_trainer()
    stir(trainer)
    rollout, frozen = rollout_of(trainer)
    assert len(set(rollout.lengths.tolist())) > 1
    together = gradients(trainer, rollout, frozen)
    num_tokens = int(rollout.lengths.sum())
    ac = trainer.actor_critic
    trainer.optimizer.zero_grad()
    for row in range(8):
        trainer._backward(rollout, frozen, [row], num_tokens)
    for part, expected in zip((ac.policy_parameters, ac.value_parameters), together, strict=True):
        torch.testing.assert_close(
            torch.cat([p.grad.flatten() for p in part]), expected, rtol=1e-4, atol=1e-6
        )


def test_figures_add_up_over_micro_batches(make_trainer):
    trainer = make_trainer(max_tokens=10_000)
    stir(trainer)
    rollout, _ = rollout_of(trainer)
    found = []
    for max_tokens in (10_000, 1):
        trainer.max_tokens = max_tokens
        found.append(trainer._backward(rollout, FrozenStates(), list(range(8)), 50))
    for name, figure in found[0].items():
        assert float(figure) == pytest.approx(float(found[1][name]), rel=1e-3, abs=1e-6), name


def test_cached_states_of_frozen_layers_do_not_change_the_gradient(make_trainer):
    trainer = make_trainer(frozen_layer_share=0.5, value_init="reward_model")
    stir(trainer)
    rollout, frozen = rollout_of(trainer)
    assert frozen.of("policy", rollout.replies) is not None
    with_cache = gradients(trainer, rollout, frozen)
    without = gradients(trainer, rollout, FrozenStates())
    for one, other in zip(with_cache, without, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_values_are_those_of_the_whole_value_model(make_trainer):
    settings = {"value_init": "reward_model"}  # whose adapter is in the frozen layers, too
    cached = make_trainer("cached", frozen_layer_share=0.5, **settings)
    whole = make_trainer("whole", frozen_layer_share=0.0, **settings)
    values = [rollout_of(trainer)[0].values for trainer in (cached, whole)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)


def test_frozen_layers_have_no_policy_adapter_and_their_value_adapter_stays(make_trainer):
    trainer = make_trainer(frozen_layer_share=0.5, value_init="reward_model")
    model = trainer.actor_critic.policy.model
    policy = [n for n, _ in model.named_parameters() if f".{POLICY}." in n]
    assert policy
    assert all(".layers.1." in name for name in policy)
    lower = {n: p.clone() for n, p in model.named_parameters() if ".layers.0." in n}
    assert any(f".{VALUE}." in name for name in lower)
    trainer._update(*rollout_of(trainer))
    assert all(torch.equal(lower[n], p) for n, p in model.named_parameters() if n in lower)


@pytest.mark.parametrize("finetuning", ["lora", "full"])
def test_gradient_checkpointing_does_not_change_the_gradient(make_trainer, finetuning):
    settings = {"finetuning": finetuning, "frozen_layer_share": 0.0}
    found = []
    for checkpointing in (False, True):
        trainer = make_trainer(gradient_checkpointing=checkpointing, **settings)
        stir(trainer)
        rollout, frozen = rollout_of(trainer)
        with trainer.actor_critic.training():
            found.append(gradients(trainer, rollout, frozen))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_logits_in_pieces_do_not_change_the_gradient_and_few_exist_at_once(
    make_trainer, monkeypatch
):
    trainer = make_trainer(max_tokens=10_000)
    stir(trainer)
    rollout, frozen = rollout_of(trainer)
    whole = gradients(trainer, rollout, frozen)
    head = trainer.actor_critic.policy.model.get_base_model().get_output_embeddings()
    limit = 5 * head.weight.shape[0]
    monkeypatch.setitem(MAX_LOGITS, "cpu", limit)
    sizes = []
    hook = head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    in_pieces = gradients(trainer, rollout, frozen)
    hook.remove()
    assert max(sizes) <= limit
    assert sum(sizes) >= int(rollout.lengths.sum()) * head.weight.shape[0]
    for one, other in zip(whole, in_pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_logits_are_made_at_reply_tokens_only(make_trainer):
    trainer = make_trainer(max_tokens=10_000)
    rollout, frozen = rollout_of(trainer)
    head = trainer.actor_critic.policy.model.get_base_model().get_output_embeddings()
    rows = []
    hook = head.register_forward_hook(
        lambda module, inputs, output: rows.append(output.numel() // head.weight.shape[0])
    )
    gradients(trainer, rollout, frozen)
    hook.remove()
    assert sum(rows) == int(rollout.lengths.sum())


def test_in_bfloat16_the_gradient_points_the_same_way(make_trainer, monkeypatch):
    """As on a GPU: CPUs compute in bfloat16, too, though the stages do not ask them to."""
    trainer = make_trainer()
    stir(trainer)
    rollout, _ = rollout_of(trainer)
    expected = gradients(trainer, rollout, FrozenStates())
    monkeypatch.setattr("stages.core.models.supports_bf16", lambda device: True)
    half = gradients(trainer, rollout, FrozenStates())
    for name, one, other in zip(("policy", "value"), expected, half, strict=True):
        similarity = float(torch.cosine_similarity(one, other, dim=0))
        assert 0.99 < similarity < 1, name
        assert float(other.norm() / one.norm()) == pytest.approx(1, abs=0.05)


def test_an_update_in_bfloat16_takes_its_ratio_from_a_second_forward_pass(
    make_trainer, monkeypatch
):
    trainer = make_trainer(frozen_layer_share=0.0)
    stir(trainer)  # so that merged weights round otherwise than an adapter beside them
    for module in ("stages.core.models", "stages.ppo.rollout"):
        monkeypatch.setattr(f"{module}.supports_bf16", lambda device: True)
    replies = trainer._sample_replies()
    sampled = [reply.logprobs for reply in replies]
    rollout, frozen = trainer._rate(replies)
    assert float((torch.cat(sampled) - rollout.logprobs[rollout.mask]).abs().mean()) > 1e-3
    figures = trainer._backward(rollout, frozen, list(range(8)), int(rollout.lengths.sum()))
    assert float(figures["policy/approxkl_avg"]) < 1e-8
    assert float(figures["val/ratio"]) == pytest.approx(1.0, abs=1e-4)
    trainer._update(rollout, frozen)


@BOTH
def test_in_bfloat16_too_micro_batches_weigh_their_tokens(make_trainer, monkeypatch, finetuning):
    """All of a step's run within one autocast, which keeps the converted weights."""
    trainer = make_trainer(finetuning=finetuning, frozen_layer_share=0.0)
    stir(trainer)
    for module in ("stages.core.models", "stages.ppo.rollout"):
        monkeypatch.setattr(f"{module}.supports_bf16", lambda device: True)
    rollout, frozen = rollout_of(trainer)
    together = gradients(trainer, rollout, frozen)
    trainer.max_tokens = 1  # a row each
    for expected, found in zip(together, gradients(trainer, rollout, frozen), strict=True):
        assert float((found - expected).norm() / expected.norm()) < 0.05


def test_the_epochs_end_when_the_policy_is_too_far_from_the_one_that_sampled(make_trainer):
    eager = make_trainer(num_ppo_epochs=4, learning_rate=0.1)
    steps = eager._update(*rollout_of(eager))["policy/num_steps"]
    assert steps == 8
    careful = make_trainer(num_ppo_epochs=4, learning_rate=0.1, max_approx_kl=1e-4)
    figures = careful._update(*rollout_of(careful))
    assert figures["policy/num_steps"] == 1  # the second is refused, and no step any more


def test_a_step_from_too_far_away_is_not_taken(make_trainer):
    trainer = make_trainer(max_approx_kl=0.01)
    rollout, frozen = rollout_of(trainer)
    stir(trainer)
    before = weights(trainer)
    figures = trainer._step(rollout, frozen, torch.arange(8))
    assert figures["policy/approxkl_avg"] > 0.01
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))


def test_while_the_value_model_warms_up_the_policy_waits(make_trainer):
    trainer = make_trainer(value_warmup_updates=1)
    before = weights(trainer)
    figures = trainer._update(*rollout_of(trainer))
    assert "policy/approxkl_avg" not in figures
    count = len(trainer.actor_critic.policy_parameters)
    after = weights(trainer)
    assert all(torch.equal(a, b) for a, b in zip(before[:count], after[:count], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before[count:], after[count:], strict=True))
    trainer.progress.num_updates = 1
    trainer._update(*rollout_of(trainer))
    assert not all(
        torch.equal(a, b) for a, b in zip(before[:count], weights(trainer)[:count], strict=True)
    )


def test_the_entropy_bonus_raises_the_entropy(make_trainer):
    entropies = []
    for coefficient in (0.0, 10.0):
        trainer = make_trainer(str(coefficient), entropy_coef=coefficient, learning_rate=3e-2)
        entropies.append(trainer.train().history[-1]["entropy"])
    assert entropies[1] > entropies[0] + 0.1


def test_a_reply_without_eos_is_penalised(make_trainer):
    trainer = make_trainer(
        scorers={"reward_model": lambda prompts, completions: [0.25] * len(completions)},
        missing_eos_penalty=0.75,
        kl_coef=0.0,
    )
    rollout, _ = rollout_of(trainer)
    assert not rollout.has_eos.all()
    expected = torch.where(rollout.has_eos, 0.25, -0.5)
    torch.testing.assert_close(rollout.rewards.sum(-1), expected)


# ------------------------------------------------------------------------------------ many updates


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finetuning": "full", "learning_rate": 1e-3},
        {
            "kl_target": 0.5,
            "reset_reference_updates": 2,
            "scorers": {"watched": "w.py:score"},
            "guard": {"scorer": "watched", "window": 2, "action": "raise_kl", "tolerance": 0.1},
        },
        {
            "scorers": {"watched": "w.py:score"},
            "guard": {"scorer": "watched", "window": 5, "tolerance": 100, "kl_ceiling": 100},
        },
    ],
    ids=["lora", "full", "all-state", "scored-policies"],
)
def test_a_resumed_run_equals_the_straight_run_bit_for_bit(make_trainer, changes):
    def watched(prompts, completions):
        return [float(-len(text)) for text in completions]

    calls = 0
    changes = dict(changes)
    named = {"watched": watched} if "scorers" in changes else {}
    names = changes.pop("scorers", {})

    def make(name, **scorers):
        return make_trainer(name, scorers=named | scorers, **{"config_scorers": names} | changes)

    straight = make("straight")
    straight.train()

    class Killed(Exception):
        pass

    vowels = straight.scorers["reward_model"]

    def dies_in_the_fourth_rollout(prompts, completions):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return vowels(prompts, completions)

    killed = make("resumed", reward_model=dies_in_the_fourth_rollout)
    with pytest.raises(Killed):
        killed.train()
    torch.rand(17)  # whatever else drew random numbers meanwhile
    resumed = make("resumed")
    resumed.train()
    assert resumed.progress.history == straight.progress.history
    assert resumed.guard.state() == straight.guard.state()
    assert resumed.progress.kl_coef == straight.progress.kl_coef
    if straight.kept_policy:
        states = (trainer.kept_policy.state() for trainer in (straight, resumed))
        torch.testing.assert_close(*states, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(resumed), strict=True))


def test_a_run_killed_before_its_first_checkpoint_has_each_step_once(
    make_trainer, tmp_path, monkeypatch
):
    metrics = tmp_path / "metrics.jsonl"
    monkeypatch.setitem(stage_runs._current, "metrics_path", metrics)
    killed = make_trainer(total_episodes=24, save_updates=10)
    monkeypatch.setattr(killed, "_save_checkpoint", lambda: None)
    killed.train()
    make_trainer(total_episodes=24, save_updates=10).train()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == [8, 16, 24]


def test_a_checkpoint_cut_short_is_not_taken_for_one(make_trainer, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "update-000004.part").write_bytes(b"half")
    trainer = make_trainer(total_episodes=8)
    trainer.train()
    assert trainer.progress.num_updates == 1


def test_checkpoints_are_few_and_hold_no_frozen_weights(make_trainer, tmp_path):
    trainer = make_trainer(save_updates=1)
    trainer.train()
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == ["update-000005.pt", "update-000006.pt"]
    stored = {}  # whole storages: of a view, torch writes all that it is a view of
    collect_tensors(torch.load(files[-1], weights_only=True), stored)
    # Of each trained number itself and AdamW's two moments, of each tensor the number of its
    # steps; and the policy that the guard may return to.
    trained = weights(trainer)
    expected = sum(3 * tensor.numel() + 1 for tensor in trained)
    expected += sum(tensor.numel() for tensor in trainer.actor_critic.policy_parameters)
    assert sum(stored.values()) == 4 * expected


def collect_tensors(value, stored):
    """The bytes of every storage of floats in nested lists and dictionaries, by its address."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        stored[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            collect_tensors(item, stored)


def test_the_kl_coefficient_moves_towards_its_target(make_trainer):
    trainer = make_trainer(kl_target=5.0, kl_horizon=100, kl_coef=0.1)
    trainer.train()
    # The KL stays far below: each update lowers the coefficient by 20 % · 8 / 100.
    assert max(row["kl"] for row in trainer.progress.history) < 4
    assert trainer.progress.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 8 / 100) ** 6)


@BOTH
def test_after_a_reset_the_reference_is_the_policy(make_trainer, finetuning):
    trainer = make_trainer(
        reset_reference_updates=3, learning_rate=1e-2, kl_coef=0.0, finetuning=finetuning
    )
    kl = [row["kl"] for row in trainer.train().history]
    assert abs(kl[2]) > 1e-3
    assert abs(kl[3]) < 1e-4
    assert abs(kl[5]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rise"),
    [
        ({"lora": {"rank": 16, "alpha": 32}}, 0.05),
        ({"finetuning": "full", "learning_rate": 2e-3}, 0.08),
    ],
    ids=["lora", "full"],
)
def test_the_reward_rises(make_trainer, changes, rise):
    # Of 192 replies the mean has a standard error of .008. Over six seeds the score rises by .11 to
    # .15 (LoRA) and .13 to .18; another processor rounds otherwise, which is like another seed.
    trainer = make_trainer(
        **{
            "total_episodes": 64 * 30,
            "batch_size": 64,
            "max_tokens": 4000,
            "kl_coef": 0.0,
            "missing_eos_penalty": 0.0,
            "learning_rate": 1e-2,
            "guard": {"kl_ceiling": 1e6},
        }
        | changes
    )
    history = trainer.train().history
    first = sum(row["score"] for row in history[:3]) / 3
    last = sum(row["score"] for row in history[-3:]) / 3
    assert last > first + rise, (first, last)
    assert history[-1]["kl"] > 1


# ------------------------------------------------------------------------------ when it goes wrong


def test_a_kl_above_the_ceiling_stops_the_run_and_keeps_the_policy_before(make_trainer):
    trainer = make_trainer(learning_rate=0.05, kl_coef=0.0, guard={"kl_ceiling": 0.05})
    progress = trainer.train()
    assert "exceeds 0.05" in progress.stopped
    assert 0 < progress.num_updates < 6
    ac = trainer.actor_critic
    kept = trainer.kept_policy.state()["kept"]
    assert all(torch.equal(*pair) for pair in zip(ac.policy_parameters, kept, strict=True))
    assert all(row["kl"] <= 0.05 for row in progress.history)


@pytest.mark.parametrize(("action", "factor"), [("warn", 1), ("raise_kl", 2)])
def test_other_actions_go_on(make_trainer, capsys, action, factor):
    trainer = make_trainer(
        learning_rate=0.05, kl_coef=0.01, guard={"kl_ceiling": 0.05, "action": action}
    )
    progress = trainer.train()
    assert progress.num_updates == 6
    alarms = len(trainer.guard.alarms)
    assert alarms >= 1
    assert progress.kl_coef == pytest.approx(0.01 * factor**alarms)
    assert re.search(r"guard: after update \d: the KL of", capsys.readouterr().out)


def test_the_guard_stops_a_run_whose_watched_score_falls_and_keeps_the_best(make_trainer):
    settings = {
        "total_episodes": 64 * 20,
        "batch_size": 64,
        "max_tokens": 4000,
        "kl_coef": 0.0,
        "missing_eos_penalty": 0.0,
        "learning_rate": 2e-2,
        "config_scorers": {"watched": "w.py:score"},
        "scorers": {
            "reward_model": lambda prompts, texts: [float(text.count("e")) for text in texts],
            "watched": lambda prompts, texts: [-float(text.count("e")) for text in texts],
        },
    }
    trainer = make_trainer(guard={"scorer": "watched", "window": 2, "kl_ceiling": 1e6}, **settings)
    progress = trainer.train()
    assert "watched fell from" in progress.stopped
    assert progress.num_updates < 20
    kept, _ = rollout_of(trainer)
    assert float(kept.scores.mean()) < progress.history[-1]["score"]


def test_the_policy_that_the_last_update_made_is_looked_at_too(make_trainer):
    trainer = make_trainer(
        learning_rate=0.5, kl_coef=0.0, total_episodes=8, guard={"kl_ceiling": 0.05}
    )
    before = weights(trainer)
    progress = trainer.train()
    assert "exceeds 0.05" in progress.stopped
    assert (progress.num_updates, progress.kept_update) == (1, 0)
    policy = trainer.actor_critic.policy_parameters
    assert all(torch.equal(a, b) for a, b in zip(before, policy, strict=False))


def test_scorers_without_a_weight_are_watched(make_trainer):
    trainer = make_trainer(
        total_episodes=24,
        config_scorers={"length": "w.py:score"},
        scorers={"length": lambda prompts, texts: [float(len(text)) for text in texts]},
        guard={"updates": 2},
    )
    figures = trainer.train().figures
    assert ["scores/length" in row for row in figures] == [True, False, True]


def test_the_guard_sees_the_last_policy_whatever_lies_between_its_scorings(make_trainer):
    trainer = make_trainer(
        total_episodes=24,
        config_scorers={"length": "w.py:score"},
        scorers={"length": lambda prompts, texts: [float(len(text)) for text in texts]},
        guard={"scorer": "length", "updates": 2},
    )
    trainer.train()
    assert [scoring.update for scoring in trainer.guard.scorings] == [0, 2, 3]


def test_a_policy_that_a_step_has_broken_ends_the_run_with_the_setting_to_lower(make_trainer):
    trainer = make_trainer(num_ppo_epochs=3, learning_rate=1e25, value_learning_rate=1e25)
    with pytest.raises(UserError, match=r"update 1: 5 gradients .* lower ppo\.learning_rate"):
        trainer.train()


def test_one_such_gradient_is_skipped_a_second_halves_the_steps(make_trainer, capsys):
    trainer = make_trainer()
    rollout, frozen = rollout_of(trainer)
    before, rate = weights(trainer), trainer.scheduler.base_lrs[0]
    rollout.advantages[0, 0] = math.nan
    rows = torch.arange(8)
    for expected in (rate, rate / 2):
        assert trainer._step(rollout, frozen, rows) == {}
        assert trainer.scheduler.base_lrs[0] == expected
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    assert "step skipped" in capsys.readouterr().out
    rollout.advantages[0, 0] = 0.0
    assert trainer._step(rollout, frozen, rows)
    assert trainer.progress.steps_skipped == 0


@pytest.mark.parametrize(
    ("num_ppo_epochs", "reason"),
    [(1, "the KL of nan nats"), (3, "5 gradients in a row were not finite")],
    ids=["kl", "gradients"],
)
def test_a_policy_that_breaks_later_gives_way_to_the_last_good_one(
    make_trainer, capsys, num_ppo_epochs, reason
):
    calls = 0
    trainer = make_trainer(num_ppo_epochs=num_ppo_epochs)
    score = trainer.scorers["reward_model"]

    def sets_a_ruinous_rate_in_the_third_rollout(prompts, completions):
        nonlocal calls
        calls += 1
        if calls == 3:
            for group in trainer.optimizer.param_groups:
                group["lr"] = 1e25
        return score(prompts, completions)

    trainer.scorers = {"reward_model": sets_a_ruinous_rate_in_the_third_rollout}
    progress = trainer.train()
    assert reason in progress.stopped
    assert progress.kept_update == 2
    assert "the policy after update 2 is kept" in capsys.readouterr().out
    kept, _ = rollout_of(trainer)
    assert torch.isfinite(kept.logprobs).all()
    assert float(kept.kl.abs().max()) < 5


def test_adapters_of_another_model_are_left_alone(make_trainer):
    trainer = make_trainer(value_init="reward_model")
    model = trainer.actor_critic.policy.model
    reward = [p.clone() for p in adapter_parameters(model, "reward")]
    trainer._update(*rollout_of(trainer))
    assert all(
        torch.equal(a, b) for a, b in zip(reward, adapter_parameters(model, "reward"), strict=True)
    )


def test_a_zero_head_values_everything_at_zero(make_trainer):
    trainer = make_trainer(value_init="zero")
    rollout, _ = rollout_of(trainer)
    assert not rollout.values.any()
    assert isinstance(trainer.actor_critic.value_head, nn.Linear)
