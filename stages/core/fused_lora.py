"""LoRA without its detour: one product a layer instead of three.

A LoRA layer passes every token through the base weight W and through A and B beside it. The sum
W + s · B · A costs no more than passing ``rank`` tokens, and then one product serves all; on CPUs
the thin products of A and B take as long as that with W. Hu et al. 2022, section 4.1.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoRALinear
from torch import nn
from torch.nn import functional

from stages.core.models import active_adapter, adapted_layers, replaced_forward


@contextlib.contextmanager
def fused_adapter(model: PeftModel, name: str | None) -> Iterator[None]:
    """As ``active_adapter``, with the adapter's layers fused where they are plain LoRA on a linear
    layer in the present precision; where autocast converts, they stay as PEFT has them.

    A layer's sum is made once, in its first forward pass inside, and kept to the end: enter anew
    after A or B have changed, and enter once for many batches, which saves a tenth of their time.

    Raises:
        KeyError: there is no such adapter.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(active_adapter(model, name))
        if name is not None and not torch.is_autocast_enabled(model.device.type):
            for layer in adapted_layers(model):
                if _is_plain(layer, name):
                    stack.enter_context(replaced_forward(layer, _fused(layer, name)))
        yield


def _is_plain(layer: Any, name: str) -> bool:
    return (
        type(layer) is LoRALinear
        and name in layer.lora_A
        and type(layer.get_base_layer()) is nn.Linear
        and not layer.merged
        and not layer.lora_variant.get(name)  # DoRA and its kind
        and layer.lora_A[name].bias is None
        and layer.lora_B[name].bias is None
        and (getattr(layer.lora_dropout[name], "p", 0.0) == 0 or not layer.training)
    )


def _fused(layer: Any, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    base = layer.get_base_layer()
    lora_a, lora_b = layer.lora_A[name].weight, layer.lora_B[name].weight
    scaling = layer.scaling[name]

    @functools.cache
    def fused_weight() -> torch.Tensor:
        with torch.no_grad():
            return torch.addmm(base.weight, lora_b, lora_a, alpha=scaling)

    return lambda hidden: _fused_linear(hidden, fused_weight(), base.bias, lora_a, lora_b, scaling)


class _Fused(torch.autograd.Function):
    """y = x Fᵀ + bias for x (..., in) and F = W + s · B · A (out, in), A (rank, in), B (out, rank).
    W and bias are frozen; F is taken as given, its gradients go to A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        fused_weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, fused_weight, lora_a, lora_b)
        ctx.scaling = scaling
        return functional.linear(hidden, fused_weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, fused_weight, lora_a, lora_b = ctx.saved_tensors
        (gradient,) = gradients
        to_hidden = to_a = to_b = None
        if ctx.needs_input_grad[0]:
            to_hidden = gradient @ fused_weight
        if ctx.needs_input_grad[3]:
            rows, gradient_rows = hidden.flatten(0, -2), gradient.flatten(0, -2)
            to_a = ctx.scaling * (gradient_rows @ lora_b).t() @ rows
            to_b = ctx.scaling * gradient_rows.t() @ (rows @ lora_a.t())
        return to_hidden, None, None, to_a, to_b, None


_fused_linear: Callable[..., torch.Tensor] = _Fused.apply
