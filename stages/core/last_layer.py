"""The last layer of a transformer at the positions that are looked at, and at no others.

Below the last layer every position matters, since later ones attend to it. In the last layer the
others only lend their keys and values; queries, attention output and feed-forward network are
computed for nothing there.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.core.models import replaced_forward, transformer_layers

POSITIONWISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""Parts of a layer that take each position by itself, as most architectures call them. Where one
has other names, it is computed as a whole."""


@contextlib.contextmanager
def last_layer_at(model: PreTrainedModel, positions: torch.Tensor) -> Iterator[None]:
    """Forward passes over (B, L) tokens give correct final states at ``positions`` (N,), indices
    into the flattened (B · L), and meaningless ones elsewhere."""
    layer = transformer_layers(model)[-1]
    parts = dict(layer.named_modules())
    if any(isinstance(part, nn.Conv1d) for part in parts.values()):
        parts = {}  # a convolution over positions may follow one of them (Inkling, Kimi Linear)
    with contextlib.ExitStack() as stack:
        for name in POSITIONWISE:
            if name in parts:
                forward = _at(parts[name], positions)
                stack.enter_context(replaced_forward(parts[name], forward))
        yield


def _at(part: nn.Module, positions: torch.Tensor) -> Callable[..., Any]:
    forward = part.forward

    def at_positions(*args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and args[0].dim() == 3:
            hidden = args[0]
            some = forward(hidden.flatten(0, 1)[positions].unsqueeze(0))
            if isinstance(some, torch.Tensor):
                some = some.squeeze(0)
                everywhere = some.new_zeros(hidden.shape[0] * hidden.shape[1], some.shape[-1])
                return everywhere.index_copy(0, positions, some).view(*hidden.shape[:2], -1)
        # As a whole where it takes or returns more than states: BLOOM's mlp adds the residual,
        # gpt-oss's returns the router's scores, too.
        return forward(*args, **kwargs)

    return at_positions
