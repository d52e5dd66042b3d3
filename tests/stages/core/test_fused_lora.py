"""Fused LoRA layers: the same values and gradients as PEFT's, and PEFT's where they do not fit."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from stages.core.config import LoRAConfig
from stages.core.fused_lora import _fused_linear, fused_adapter
from stages.core.models import active_adapter, adapter_parameters, load_model, peft_config

INPUT_IDS = torch.tensor([[5, 6, 7, 8, 9], [20, 21, 22, 23, 24]])


@pytest.fixture
def model(tiny_model_folder):
    lora = peft_config(LoRAConfig(rank=4, alpha=12))
    model = get_peft_model(
        load_model(tiny_model_folder, torch.device("cpu")), lora, adapter_name="policy"
    )
    model.add_adapter("value", lora)
    torch.manual_seed(0)
    with torch.no_grad():
        for name in ("policy", "value"):
            for parameter in adapter_parameters(model, name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", ["policy", "value"])
def test_logits_and_gradients_are_those_of_peft(model, name):
    for parameter in adapter_parameters(model, name):
        parameter.requires_grad_(True)
    found = []
    for adapter in (active_adapter, fused_adapter):
        model.zero_grad()
        with adapter(model, name):
            logits = model(INPUT_IDS).logits
            logits.log_softmax(-1)[..., 7].sum().backward()
        gradients = [parameter.grad.clone() for parameter in adapter_parameters(model, name)]
        found.append([logits.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    shapes = ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2))
    hidden, weight, bias, lora_a, lora_b = (torch.randn(*s, dtype=torch.float64) for s in shapes)
    trained = (hidden, lora_a, lora_b)
    for tensor in trained:
        tensor.requires_grad_(True)

    def layer(x, a, b):
        fused = torch.addmm(weight, b.detach(), a.detach(), alpha=1.5)
        return _fused_linear(x, fused, bias, a, b, 1.5)

    torch.autograd.gradcheck(layer, trained, raise_exception=True)


def test_entered_anew_it_sees_what_has_changed(model):
    found = []
    for _ in range(2):
        with torch.no_grad():
            with fused_adapter(model, "policy"):
                fused = model(INPUT_IDS).logits
            with active_adapter(model, "policy"):
                torch.testing.assert_close(fused, model(INPUT_IDS).logits, rtol=1e-3, atol=1e-4)
            found.append(fused)
            for parameter in adapter_parameters(model, "policy"):
                parameter.add_(0.05)
    assert not torch.allclose(*found, atol=1e-3)


def test_the_layers_are_fused_inside_and_peft_s_outside(model):
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    thin = []
    layer.lora_A["policy"].register_forward_hook(lambda *args: thin.append(1))
    with fused_adapter(model, "policy"):
        model(INPUT_IDS)
    assert not thin
    with active_adapter(model, "policy"):
        model(INPUT_IDS)
    assert thin


@pytest.mark.parametrize(
    "changes", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}], ids=str
)
def test_what_is_not_plain_lora_is_left_to_peft(tiny_model_folder, changes):
    base = load_model(tiny_model_folder, torch.device("cpu"))
    config = LoraConfig(r=4, target_modules=["up_proj"], **changes)
    model = get_peft_model(base, config, adapter_name="policy").train()
    thin = []
    layer = base.model.layers[0].mlp.up_proj
    forward_of_peft = type(layer).forward
    layer.lora_A["policy"].register_forward_hook(lambda *args: thin.append(1))
    with fused_adapter(model, "policy"):
        assert layer.forward.__func__ is forward_of_peft
        model(INPUT_IDS)


def test_transposed_layers_are_left_to_peft():
    config = GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=32,
                        bos_token_id=1, eos_token_id=2)  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).eval()
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    model = get_peft_model(base, lora, adapter_name="policy")
    nn.init.normal_(adapter_parameters(model, "policy")[1])
    with active_adapter(model, "policy"):
        expected = model(INPUT_IDS).logits
    with fused_adapter(model, "policy"):
        assert torch.equal(model(INPUT_IDS).logits, expected)


def test_under_autocast_peft_converts_as_it_does(model):
    with torch.autocast("cpu", torch.bfloat16):
        with active_adapter(model, "policy"):
            expected = model(INPUT_IDS).logits
        with fused_adapter(model, "policy"):
            assert torch.equal(model(INPUT_IDS).logits, expected)
