"""Log-probabilities of replies: equal to a plain forward pass, whatever the batch."""

import math

import pytest
import torch
from transformers import AutoTokenizer

from stages.core.logprobs import collate, completion_logprobs, token_logprobs
from stages.core.models import load_model

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [40], [300, 8, 9, 10, 11, 12], [77, 78]]
COMPLETIONS = [[50, 51], [60, 61, 62, 63, 2], [70], [80, 81, 82]]


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder, CPU)


def logprobs(model, prompts=PROMPTS, completions=COMPLETIONS, **changes):
    settings = {"temperature": 1.0, "batch_size": 8, "pad_token_id": 0} | changes
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


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_company_in_a_batch_does_not_matter(model, batch_size):
    for alone, together in zip(
        logprobs(model, batch_size=batch_size), logprobs(model), strict=True
    ):
        assert torch.allclose(alone, together, atol=1e-5)


def test_the_order_of_the_rows_is_kept(model):
    turned = logprobs(model, PROMPTS[::-1], COMPLETIONS[::-1], batch_size=2)
    for one, other in zip(turned[::-1], logprobs(model, batch_size=2), strict=True):
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
    assert batch.input_ids.tolist() == [[1, 2, 3, 5, 0], [0, 0, 4, 6, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert batch.position_ids[0, :4].tolist() == [0, 1, 2, 3]
    assert batch.position_ids[1, 2:].tolist() == [0, 1, 2]
    assert batch.completion_mask.tolist() == [[True, False], [True, True]]
    assert batch.completion_ids.tolist() == [[5, 0], [6, 7]]


def test_a_batch_of_empty_completions_has_no_completion_tokens():
    assert collate([[1, 2]], [[]], 0, CPU).completion_ids.shape == (1, 0)


def test_probabilities_over_the_vocabulary_sum_to_one(model):
    vocabulary = len(model.get_input_embeddings().weight)
    values = logprobs(model, [PROMPTS[0]] * vocabulary, [[id] for id in range(vocabulary)])
    assert math.isclose(float(torch.cat(values).exp().sum()), 1.0, rel_tol=1e-4)


def test_entropy_is_that_of_the_next_tokens_distribution(model):
    batch = collate(PROMPTS, COMPLETIONS, 0, CPU)
    with torch.no_grad():
        _, entropy = token_logprobs(model, batch, 0.7)
        logits = model(torch.tensor([PROMPTS[3]])).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits / 0.7).entropy()
    assert float(entropy[3, 0]) == pytest.approx(float(expected), abs=1e-5)


def test_gradients_flow_through_logprobs_and_not_through_entropy(model):
    batch = collate(PROMPTS, COMPLETIONS, 0, CPU)
    values, entropy = token_logprobs(model, batch, 1.0)
    assert values.requires_grad
    assert not entropy.requires_grad


def test_the_tiny_models_pad_token_is_not_eos(tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert tokenizer.pad_token_id == tokenizer.bos_token_id != tokenizer.eos_token_id
