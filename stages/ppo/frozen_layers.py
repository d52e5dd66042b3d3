"""The lower layers of a transformer that are never trained, computed once instead of each time.

A model's forward runs as its authors wrote it; only the layers inside are replaced for a moment.
So masks, positions and whatever an architecture adds stay its own business.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.core.models import replaced_forward, transformer_layers


class _LayersDoneError(Exception):
    """Ends a forward pass after the frozen layers, carrying their output."""


class FrozenLayers:
    """The lowest ``count`` layers of a language model."""

    def __init__(self, model: PreTrainedModel, count: int) -> None:
        self._model = model
        self._layers = list(transformer_layers(model))[:count]
        self._num_outputs = 0  # of a layer that returns a tuple
        # Layers above may take over keys and values from these (Gemma 3n), which must then run.
        config = model.config.get_text_config()
        self._are_needed = bool(getattr(config, "num_kv_shared_layers", 0))

    def __len__(self) -> int:
        return len(self._layers)

    @torch.no_grad()
    def hidden_states(self, input_ids: torch.Tensor) -> torch.Tensor | None:
        """What the last frozen layer returns: (B, L, H) for ``input_ids`` (B, L), padded on the
        right. None where the architecture needs these layers in each forward pass."""
        if self._are_needed:
            return None

        def stop(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, tuple):
                self._num_outputs = len(output)
                output = output[0]
            raise _LayersDoneError(output)

        hook = self._layers[-1].register_forward_hook(stop)
        try:
            self._model.get_decoder()(input_ids=input_ids, use_cache=False)
        except _LayersDoneError as done:
            hidden: torch.Tensor = done.args[0]
            return hidden
        finally:
            hook.remove()
        raise AssertionError("the frozen layers did not run")

    @contextlib.contextmanager
    def replaced_by(self, hidden: torch.Tensor) -> Iterator[None]:
        """Forward passes take ``hidden`` for the frozen layers' output and do not run them."""
        output = (hidden, *[None] * (self._num_outputs - 1)) if self._num_outputs else hidden
        with contextlib.ExitStack() as stack:
            for layer in self._layers:
                stack.enter_context(replaced_forward(layer, lambda *args, **kwargs: output))
            yield
