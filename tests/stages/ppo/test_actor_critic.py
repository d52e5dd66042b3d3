"""Who shares which weights, and how policy, reference and value model begin."""

import contextlib

import pytest
import torch

from stages.core.chat import encode_completion, encode_prompt
from stages.core.config import PPOConfig
from stages.core.logprobs import collate
from stages.core.models import load_tokenizer, padding_id
from stages.ppo.actor_critic import load_actor_critic

CPU = torch.device("cpu")
PROMPT, REPLY = "Where is house 3?", "In Mill Street."
BOTH = pytest.mark.parametrize("finetuning", ["lora", "full"])


@pytest.fixture
def load(tiny_model_folder, reward_model_folder):
    def load(**changes):
        tokenizer = load_tokenizer(tiny_model_folder)
        config = PPOConfig.model_validate({"lora": {"rank": 4, "alpha": 8}} | changes)
        return *load_actor_critic(
            config, tiny_model_folder, reward_model_folder, tokenizer, CPU
        ), tokenizer

    return load


@torch.no_grad()
def last_value(actor_critic, tokenizer):
    """The value of the state after the whole reply: that of one token more."""
    ids = encode_completion(tokenizer, REPLY)
    batch = collate([encode_prompt(tokenizer, PROMPT)], [[*ids, 0]], padding_id(tokenizer), CPU)
    role = actor_critic.value
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(role.active())
        frozen = role.frozen_states(batch.input_ids)
        states = stack.enter_context(role.states(model, batch, frozen))
        return float(actor_critic.values(states)[-1])


@BOTH
@pytest.mark.parametrize("normalize", [True, False])
def test_the_value_model_starts_as_the_reward_model(load, finetuning, normalize):
    actor_critic, reward_model, tokenizer = load(
        finetuning=finetuning, normalize_scores=normalize, scorer_weights={"reward_model": 0.5}
    )
    score = reward_model.score([PROMPT], [REPLY])
    expected = (reward_model.normalized(score) if normalize else score)[0]
    assert last_value(actor_critic, tokenizer) == pytest.approx(expected / 2, abs=1e-4)


@BOTH
def test_or_at_zero(load, finetuning):
    actor_critic, _, tokenizer = load(finetuning=finetuning, value_init="zero")
    assert last_value(actor_critic, tokenizer) == 0


@torch.no_grad()
def logits(role):
    with role.active() as model:
        return model(torch.arange(10).unsqueeze(0)).logits


@BOTH
def test_the_policy_starts_as_the_reference_and_leaves_it(load, finetuning):
    actor_critic, _, _ = load(finetuning=finetuning)
    before = logits(actor_critic.reference)
    torch.testing.assert_close(logits(actor_critic.policy), before)
    with torch.no_grad():
        for parameter in actor_critic.policy_parameters:
            parameter.add_(0.1)
    assert not torch.allclose(logits(actor_critic.policy), before, atol=1e-2)
    assert torch.equal(logits(actor_critic.reference), before)


@BOTH
def test_sampling_sees_the_policy_and_leaves_no_trace(load, finetuning):
    actor_critic, _, _ = load(finetuning=finetuning)
    with torch.no_grad():
        for parameter in actor_critic.policy_parameters:
            parameter.add_(0.05)
    policy, reference = logits(actor_critic.policy), logits(actor_critic.reference)
    for _ in range(20):
        with actor_critic.sampling() as model, torch.no_grad():
            sampled = model(torch.arange(10).unsqueeze(0)).logits
    torch.testing.assert_close(sampled, policy, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(actor_critic.policy), policy)
    assert torch.equal(logits(actor_critic.reference), reference)


def test_with_lora_one_backbone_serves_all(load):
    actor_critic, reward_model, _ = load()
    roles = (actor_critic.policy, actor_critic.reference, actor_critic.value)
    assert {id(role.model) for role in roles} == {id(reward_model.model)}


def test_in_full_fine_tuning_the_reference_shares_with_the_reward_model_alone(load):
    actor_critic, reward_model, _ = load(finetuning="full")
    assert actor_critic.reference.model is reward_model.model
    places = [
        {parameter.data_ptr() for parameter in model.parameters()}
        for model in (reward_model.model, actor_critic.policy.model, actor_critic.value.model)
    ]
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert not places[1] & places[2]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 1), (1.0, 1)])
def test_at_least_one_layer_is_trained(load, share, expected):
    actor_critic, _, _ = load(frozen_layer_share=share)
    assert len(actor_critic.policy.frozen or ()) == expected
