"""Log-probabilities of replies: equal to a plain forward pass, whatever the batch."""

import math

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    Gemma2Config,
    Gemma4Config,
    GPT2Config,
    GraniteConfig,
    MixtralConfig,
)

from stages.core.logprobs import (
    MAX_LOGITS,
    collate,
    completion_logprobs,
    token_entropies,
    token_logprobs,
)
from stages.core.models import load_model

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
PROMPTS = [[5, 6, 7], [40], [300, 8, 9, 10, 11, 12], [77, 78]]
COMPLETIONS = [[50, 51], [60, 61, 62, 63, 2], [70], [80, 81, 82]]


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder, CPU)


def logprobs(model, prompts=PROMPTS, completions=COMPLETIONS, **changes):
    settings = {"temperature": 1.0, "max_tokens_per_batch": 100, "pad_token_id": 0} | changes
    return completion_logprobs(model, prompts, completions, **settings)


@torch.no_grad()
def naive(model, prompt, completion, temperature=1.0):
    """One row, no padding: the logits before each token of the completion."""
    logits = model(torch.tensor([prompt + completion])).logits[0] / temperature
    table = logits.log_softmax(-1)
    return torch.stack(
        [table[len(prompt) + place - 1, token] for place, token in enumerate(completion)]
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_they_equal_a_plain_forward_pass(model, temperature):
    for row, values in enumerate(logprobs(model, temperature=temperature)):
        expected = naive(model, PROMPTS[row], COMPLETIONS[row], temperature)
        assert torch.allclose(values, expected, atol=1e-5)


def test_temperature_matters(model):
    assert not torch.allclose(logprobs(model)[0], logprobs(model, temperature=2.0)[0], atol=1e-2)


@pytest.mark.parametrize("max_tokens", [1, 10, 15])
def test_the_company_in_a_batch_does_not_matter(model, max_tokens):
    for alone, together in zip(
        logprobs(model, max_tokens_per_batch=max_tokens), logprobs(model), strict=True
    ):
        assert torch.allclose(alone, together, atol=1e-5)


def test_the_order_of_the_rows_is_kept(model):
    turned = logprobs(model, PROMPTS[::-1], COMPLETIONS[::-1], max_tokens_per_batch=15)
    for one, other in zip(turned[::-1], logprobs(model, max_tokens_per_batch=15), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_padding_with_a_token_of_the_reply_does_not_matter(model):
    """As where a tokenizer pads with EOS: the final EOS of a reply still counts."""
    eos = COMPLETIONS[1][-1]
    for one, other in zip(logprobs(model, pad_token_id=eos), logprobs(model), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert len(logprobs(model, pad_token_id=eos)[1]) == 5


def test_each_row_has_one_value_a_token(model):
    assert [len(values) for values in logprobs(model)] == [len(row) for row in COMPLETIONS]


def test_the_layout_of_a_batch():
    batch = collate([[1, 2, 3], [4]], [[5], [6, 7]], 0, CPU)
    assert batch.input_ids.tolist() == [[1, 2, 3, 5], [4, 6, 7, 0]]
    assert batch.completion_ids.tolist() == [5, 6, 7]
    # The tokens 3, 4 and 6 stand where these are chosen.
    assert batch.predictors.tolist() == [2, 4, 5]
    hidden = torch.arange(8.0).view(2, 4, 1)
    assert batch.select(hidden).flatten().tolist() == [2.0, 4.0, 5.0]


def test_a_batch_of_empty_completions_has_no_completion_tokens():
    assert collate([[1, 2]], [[]], 0, CPU).completion_ids.shape == (0,)


def test_probabilities_over_the_vocabulary_sum_to_one(model):
    vocabulary = len(model.get_input_embeddings().weight)
    values = logprobs(model, [PROMPTS[0]] * vocabulary, [[id] for id in range(vocabulary)])
    assert math.isclose(float(torch.cat(values).exp().sum()), 1.0, rel_tol=1e-4)


def states(model):
    batch = collate(PROMPTS, COMPLETIONS, 0, CPU)
    hidden = model.get_decoder()(input_ids=batch.input_ids).last_hidden_state
    return batch.select(hidden), batch.completion_ids


@torch.no_grad()
def test_entropy_is_that_of_the_next_tokens_distribution(model):
    hidden, _ = states(model)
    logits = model(torch.tensor([PROMPTS[3]])).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    assert float(token_entropies(model, hidden, 0.7)[-3]) == pytest.approx(
        float(expected), abs=1e-5
    )


@pytest.mark.parametrize("function", ["logprobs", "entropies"])
def test_in_pieces_values_and_gradients_are_the_same(model, function, monkeypatch):
    model.requires_grad_(True)
    found = []
    for limit in (2**23, 3 * model.config.vocab_size):
        monkeypatch.setitem(MAX_LOGITS, "cpu", limit)
        hidden, ids = states(model)
        if function == "logprobs":
            values = token_logprobs(model, hidden, ids, 0.7)
        else:
            values = token_entropies(model, hidden, 0.7)
        weights = torch.linspace(-1, 1, len(values))
        model.zero_grad()
        (values * weights).sum().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        found.append([values.detach(), *gradients])
    assert len(found[0][0]) > 3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


ARCHITECTURES = {
    "capped logits, sliding window": Gemma2Config(
        **SIZES, head_dim=8, final_logit_softcapping=3.0, sliding_window=4
    ),
    "scaled logits": GraniteConfig(**SIZES, logits_scaling=3.0),
    "learned positions": GPT2Config(
        vocab_size=400, n_embd=32, n_layer=4, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=2,
    ),
    "a body around the decoder": Gemma4Config(
        text_config={
            **SIZES,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "head_dim": 8,
            "global_head_dim": 8,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 400,
        },
        audio_config=None,
        vision_config=None,
        **{f"{name}_token_id": 390 + number for number, name in enumerate(
            ("image", "video", "audio", "boi", "eoi", "boa", "eoa"))},
    ),
    "experts": MixtralConfig(**SIZES, num_local_experts=2),
    "layers that return tuples": FalconConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=4, num_attention_heads=4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_keep_their_own_forward(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for row, values in enumerate(logprobs(model, temperature=0.7)):
        expected = naive(model, PROMPTS[row], COMPLETIONS[row], 0.7)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_the_tiny_models_pad_token_is_not_eos(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert tokenizer.pad_token_id == tokenizer.bos_token_id != tokenizer.eos_token_id
