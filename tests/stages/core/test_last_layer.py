"""The last layer at some positions only: right there, untouched below, and as it was afterwards."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from stages.core.last_layer import last_layer_at

SMALL = {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS = [
    LlamaConfig(**SIZES),
    Qwen3Config(**SIZES, head_dim=8),
    Gemma2Config(**SIZES, head_dim=8, sliding_window=4),
    MixtralConfig(**SIZES, num_local_experts=2),
    Phi3Config(**SIZES),
    GPT2Config(**SMALL, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    GPTNeoXConfig(
        **SMALL,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
    ),
    BloomConfig(**SMALL, hidden_size=32, n_layer=3, n_head=4),
    GptOssConfig(**SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
    Qwen3NextConfig(
        **SIZES,
        head_dim=8,
        layer_types=["linear_attention", "linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
]
INPUT_IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12], [20, 21, 22, 0, 0, 0, 0, 0]])
POSITIONS = torch.tensor([3, 5, 8, 10])


@pytest.fixture(params=CONFIGS, ids=lambda config: config.model_type)
def model(request):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(request.param).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def states(model):
    decoder = model.get_decoder()
    return decoder(input_ids=INPUT_IDS, use_cache=False).last_hidden_state.flatten(0, 1)[POSITIONS]


def test_states_and_gradients_are_those_of_a_whole_pass(model):
    found = []
    for positions in (None, POSITIONS):
        model.zero_grad()
        if positions is None:
            hidden = states(model)
            hidden.square().sum().backward()
        else:
            with last_layer_at(model, positions):
                hidden = states(model)
            hidden.square().sum().backward()
        gradients = [p.grad for p in model.get_decoder().parameters() if p.grad is not None]
        found.append([hidden.detach(), *(gradient.clone() for gradient in gradients)])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_layer_that_convolves_over_positions_is_computed_as_a_whole():
    """As Inkling's does, after attention and after the feed-forward network."""

    class Convolution(torch.nn.Conv1d):
        def forward(self, hidden):
            return super().forward(hidden.mT)[..., : hidden.shape[1]].mT

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).eval()
    layer = model.model.layers[-1]
    layer.mlp = torch.nn.Sequential(layer.mlp, Convolution(32, 32, 4, padding=3))
    layer.self_attn.o_proj = torch.nn.Sequential(
        layer.self_attn.o_proj, Convolution(32, 32, 4, padding=3)
    )
    with torch.no_grad():
        expected = states(model)
        with last_layer_at(model, POSITIONS):
            assert torch.equal(states(model), expected)


def test_afterwards_all_is_as_before(model):
    with torch.no_grad():
        before = model(INPUT_IDS).logits
        with pytest.raises(ZeroDivisionError), last_layer_at(model, POSITIONS):
            raise ZeroDivisionError
        assert torch.equal(model(INPUT_IDS).logits, before)


def test_the_feed_forward_network_sees_the_asked_positions_only():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).eval()
    seen = {}
    for name in ("mlp.up_proj", "self_attn.o_proj", "self_attn.k_proj"):
        model.model.layers[-1].get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: args[0].shape[:-1].numel()})
        )
    with last_layer_at(model, POSITIONS):
        states(model)
    assert seen["mlp.up_proj"] == 4
    assert seen["self_attn.k_proj"] == 16
