"""Sampling: whose distribution the replies follow, and what must not change them."""

import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconH1Config, MixtralConfig, Qwen3NextConfig

from stages.core.generation import generate, sample
from stages.core.models import load_model

CPU = torch.device("cpu")
PAD, MAX_NEW_TOKENS = 0, 12
PROMPTS = [[5, 6, 7], [40, 41], [300, 8, 9, 10, 11, 12, 13], [77], [5, 6, 7, 8], [200, 100, 3]]


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder, CPU)


def sampled(
    model,
    prompts=PROMPTS,
    *,
    eos=-1,
    batch_size=4,
    temperature=1e-6,
    seed=0,
    max_new_tokens=MAX_NEW_TOKENS,
    **changes,
):
    generator = torch.Generator().manual_seed(seed)
    return generate(
        model,
        prompts,
        eos_token_id=eos,
        pad_token_id=PAD,
        temperature=temperature,
        uniforms=torch.rand(len(prompts), max_new_tokens, generator=generator),
        batch_size=batch_size,
        **changes,
    )


def reply(*args, **settings):
    return sampled(*args, **settings).ids


@torch.no_grad()
def greedy(model, prompt, eos=-1):
    """One token after another without cache, padding or batch."""
    ids = list(prompt)
    for _ in range(MAX_NEW_TOKENS):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == eos:
            break
    return ids[len(prompt) :]


@pytest.fixture(scope="module")
def eos(model):
    """A token that ends some of the greedy replies at different places, and not all."""
    replies = [greedy(model, prompt) for prompt in PROMPTS]
    tokens = {token for row in replies for token in row}
    lengths = {
        token: [row.index(token) if token in row else None for row in replies] for token in tokens
    }
    return max(tokens, key=lambda token: (None in lengths[token], len(set(lengths[token]))))


def test_at_a_tiny_temperature_it_is_greedy_decoding(model):
    assert reply(model) == [greedy(model, prompt) for prompt in PROMPTS]


def test_at_a_tiny_temperature_it_equals_transformers_generate(model):
    for prompt, ids in zip(PROMPTS, reply(model), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=PAD,
        )
        assert ids == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1e-6, 1.0])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_company_in_a_batch_does_not_change_a_reply(model, eos, batch_size, temperature):
    settings = {"temperature": temperature, "eos": eos}
    assert reply(model, batch_size=batch_size, **settings) == reply(model, batch_size=1, **settings)


def test_log_probabilities_and_entropies_are_those_of_a_forward_pass(model, eos):
    replies = sampled(model, eos=eos, temperature=0.7)
    for row, prompt in enumerate(PROMPTS):
        ids = replies.ids[row]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = torch.distributions.Categorical(logits=logits)
        torch.testing.assert_close(
            replies.logprobs[row], expected.log_prob(torch.tensor(ids)), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(replies.entropies[row], expected.entropy(), rtol=1e-4, atol=1e-5)


def test_rows_that_end_early_leave_the_others_alone(model, eos):
    together = reply(model, eos=eos, batch_size=100)
    assert together == [greedy(model, prompt, eos) for prompt in PROMPTS]
    assert len({len(row) for row in together}) > 1  # they do end at different places


RECURRENT = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize(
    "config",
    [
        Qwen3NextConfig(
            **RECURRENT,
            layer_types=["linear_attention", "full_attention"],
            linear_num_value_heads=4,
            linear_num_key_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        ),
        FalconH1Config(
            **RECURRENT, mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_rows_that_end_early_leave_the_others_alone_in_recurrent_layers(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    eos = greedy(model, PROMPTS[0])[2]
    together = reply(model, eos=eos, batch_size=100)
    assert together == [greedy(model, prompt, eos) for prompt in PROMPTS]
    assert len({len(row) for row in together}) > 1


def test_a_mixture_of_experts_that_reports_its_routing_for_training_is_sampled_as_any():
    torch.manual_seed(0)
    config = MixtralConfig(**RECURRENT, num_local_experts=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    expected = reply(model)
    model.config.output_router_logits = True
    assert reply(model) == expected


def test_a_pickled_reply_is_that_reply_alone(model):
    """Ranks exchange replies, and checkpoints keep them."""
    replies = sampled(model, PROMPTS * 20, batch_size=120)
    for tensor in (replies.logprobs[0], replies.entropies[0]):
        assert len(pickle.dumps(tensor)) < 1_000  # all rows: 6 kB


def test_replies_end_with_eos_or_at_the_limit(model, eos):
    for row in reply(model, eos=eos, temperature=1.0):
        assert eos not in row[:-1]
        assert row[-1] == eos or len(row) == MAX_NEW_TOKENS


def test_the_order_of_prompts_is_kept(model):
    assert reply(model, PROMPTS[::-1]) == reply(model)[::-1]


def test_equal_seeds_give_equal_replies_and_others_do_not(model):
    first, second, other = (reply(model, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


def test_finished_prompts_are_counted(model):
    counts = []
    reply(model, batch_size=4, on_batch=counts.append)
    assert counts == [4, 6]


def test_no_prompts_give_no_replies(model):
    assert reply(model, []) == []


def test_first_tokens_follow_the_models_distribution(model):
    """Chi-square against the model's own probabilities, at a temperature other than 1; rows of
    unequal length, so that padding takes part."""
    draws, temperature = 3000, 0.7
    prompts = [PROMPTS[0], PROMPTS[2]]
    rows = reply(model, prompts * draws, temperature=temperature, max_new_tokens=1, batch_size=2000)
    for index, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = model(torch.tensor([prompt])).logits[0, -1]
        probabilities = (logits / temperature).softmax(-1)
        counts = torch.bincount(
            torch.tensor([row[0] for row in rows[index::2]]), minlength=len(probabilities)
        )
        assert chi_square_is_plausible(counts, probabilities)


def chi_square_is_plausible(counts, probabilities):
    """Within 5 standard deviations of its mean; rare tokens are taken together."""
    expected = probabilities * counts.sum()
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]]).double()
    statistic = float(((counts - expected) ** 2 / expected.clamp(min=1e-9)).sum())
    freedom = len(counts) - 1
    return abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


# ----------------------------------------------------------------------------------------- sample


def draw(logits):
    generator = torch.Generator().manual_seed(0)
    return sample(logits, 1.0, torch.rand(len(logits), generator=generator))[0]


def test_sample_follows_the_distribution():
    probabilities = torch.tensor([0.5, 0.0, 0.25, 0.125, 0.125])
    drawn = draw(probabilities.log().expand(20_000, -1))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[1] == 0
    kept = probabilities > 0
    assert chi_square_is_plausible(counts[kept], probabilities[kept])
    # The check itself can fail:
    assert not chi_square_is_plausible(counts[kept], torch.tensor([0.45, 0.3, 0.125, 0.125]))


@pytest.mark.parametrize("allowed", [[0], [3, 4], [4999]])
def test_sample_never_draws_a_token_of_probability_zero(allowed):
    logits = torch.full((5_000,), float("-inf"))
    logits[allowed] = 0.0
    drawn = draw(logits.expand(2_000, -1))
    assert set(drawn.tolist()) == set(allowed)


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-24])
def test_sample_stays_in_range_at_the_ends_of_the_unit_interval(uniform):
    torch.manual_seed(0)
    logits = torch.randn(200, 3_001)
    logits[:, [0, -1]] = float("-inf")
    drawn, _, _ = sample(logits, 1.0, torch.full((200,), uniform))
    assert set(drawn.tolist()) == {1 if uniform == 0 else 2_999}


def test_each_row_is_drawn_by_its_own_number():
    logits = torch.zeros(1_000, 50)
    drawn = draw(logits)
    assert len(set(drawn.tolist())) == 50
