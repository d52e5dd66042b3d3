"""Frozen layers computed once: a forward pass that takes their output equals a whole one."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3nTextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from stages.core.models import transformer_layers
from stages.ppo.frozen_layers import FrozenLayers

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = [
    LlamaConfig(**SIZES),
    Qwen3Config(**SIZES, head_dim=8),
    MistralConfig(**SIZES, sliding_window=4),
    Gemma2Config(**SIZES, head_dim=8, sliding_window=4),
    GPT2Config(**SMALL, n_embd=32, n_layer=4, n_head=4, n_positions=64),
    GPTNeoXConfig(
        **SMALL,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
    ),
    FalconConfig(**SMALL, hidden_size=32, num_hidden_layers=4, num_attention_heads=4),
]
INPUT_IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [20, 21, 22, 0, 0, 0, 0, 0]])


@pytest.fixture(params=CONFIGS, ids=lambda config: config.model_type)
def model(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(request.param).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def states(model):
    return model.get_decoder()(input_ids=INPUT_IDS, use_cache=False).last_hidden_state


@pytest.mark.parametrize("count", [1, 3])
def test_a_pass_from_their_output_equals_a_whole_one(model, count):
    frozen = FrozenLayers(model, count)
    with torch.no_grad():
        expected = states(model)
        with frozen.replaced_by(frozen.hidden_states(INPUT_IDS)):
            torch.testing.assert_close(states(model), expected)
        torch.testing.assert_close(states(model), expected)  # all is as before


def test_they_do_not_run_again_and_the_layers_above_do(model):
    frozen = FrozenLayers(model, 2)
    hidden = frozen.hidden_states(INPUT_IDS)
    layers = transformer_layers(model)
    with torch.no_grad():
        for parameter in layers[0].parameters():
            parameter.fill_(float("nan"))
        with frozen.replaced_by(hidden):
            assert torch.isfinite(states(model)).all()
        for parameter in layers[2].parameters():
            parameter.fill_(float("nan"))
        with frozen.replaced_by(hidden):
            assert not torch.isfinite(states(model)).any()


def test_gradients_stop_at_them(model):
    frozen = FrozenLayers(model, 2)
    hidden = frozen.hidden_states(INPUT_IDS)
    assert not hidden.requires_grad
    with frozen.replaced_by(hidden):
        states(model).sum().backward()
    layers = transformer_layers(model)
    assert all(p.grad is None for layer in layers[:2] for p in layer.parameters())
    assert any(p.grad is not None for layer in layers[2:] for p in layer.parameters())


def test_an_error_inside_leaves_the_model_as_it_was(model):
    frozen = FrozenLayers(model, 2)
    with torch.no_grad():
        expected = states(model)
        hidden = frozen.hidden_states(INPUT_IDS)
        with pytest.raises(ZeroDivisionError), frozen.replaced_by(hidden):
            raise ZeroDivisionError
        torch.testing.assert_close(states(model), expected)


def test_they_run_each_time_where_layers_above_take_over_their_keys_and_values():
    torch.manual_seed(0)
    config = Gemma3nTextConfig(
        **SIZES,
        head_dim=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        vocab_size_per_layer_input=60,
        hidden_size_per_layer_input=8,
        laurel_rank=8,
        activation_sparsity_pattern=[0.0] * 4,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    assert FrozenLayers(model, 2).hidden_states(INPUT_IDS) is None
