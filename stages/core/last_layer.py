"""The last layer of a transformer at the positions that are looked at, and at no others.

Below the last layer every position matters, since later ones attend to it. In the last layer the
others only lend their keys and values; queries, attention output and feed-forward network are
computed for nothing there.
"""

import contextlib
from collections.abc import Callable, Iterator

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
    with contextlib.ExitStack() as stack:
        for name in POSITIONWISE:
            if name in parts:
                forward = _at(parts[name], positions)
                stack.enter_context(replaced_forward(parts[name], forward))
        yield


def _at(part: nn.Module, positions: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    forward = part.forward

    def at_positions(hidden: torch.Tensor) -> torch.Tensor:
        some: torch.Tensor = forward(hidden.flatten(0, 1)[positions].unsqueeze(0)).squeeze(0)
        everywhere = some.new_zeros(hidden.shape[0] * hidden.shape[1], some.shape[-1])
        return everywhere.index_copy(0, positions, some).view(*hidden.shape[:2], -1)

    return at_positions
