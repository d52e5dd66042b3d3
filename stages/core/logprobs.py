"""Batches of prompts with replies, and the log-probabilities of the replies' tokens.

The head of a language model is its largest matrix. It is applied only where a reply's token is
predicted, and in pieces: logits of shape (batch, positions, vocabulary) never exist.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from stages.core.batching import token_budget_batches
from stages.core.last_layer import last_layer_at
from stages.core.models import autocast, replaced_forward

MAX_LOGITS = {"cpu": 2**23, "cuda": 2**26}
"""Logits in memory at once: in float32 32 MiB, few enough for a CPU's caches, or 256 MiB, enough to
keep a GPU busy."""


class SequenceBatch(NamedTuple):
    """B prompts followed by their completions, padded on the right to L tokens. Under causal
    attention nothing that follows a token changes it, so there is no mask, and torch takes its
    fastest attention. N: tokens of all completions."""

    input_ids: torch.Tensor
    """(B, L)"""
    predictors: torch.Tensor
    """(N,) for each completion token the place, in the flattened (B · L), of the token before it;
    row by row."""
    completion_ids: torch.Tensor
    """(N,)"""

    def select(self, hidden: torch.Tensor) -> torch.Tensor:
        """The states (N, H), out of (B, L, H), in which the completion tokens are chosen."""
        return hidden.flatten(0, 1)[self.predictors]


def collate(
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    pad_token_id: int,
    device: torch.device,
) -> SequenceBatch:
    """Pad a list of prompts and completions to one batch."""
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    longest = max(len(prompt) + len(completion) for prompt, completion in pairs)
    input_ids = torch.full((len(pairs), longest), pad_token_id)
    predictors = []
    for row, (prompt, completion) in enumerate(pairs):
        input_ids[row, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        first = row * longest + len(prompt) - 1
        predictors.append(torch.arange(first, first + len(completion)))
    flat = torch.cat(predictors)
    return SequenceBatch(
        input_ids.to(device), flat.to(device), input_ids.flatten()[flat + 1].to(device)
    )


def token_logprobs(
    model: PreTrainedModel, hidden: torch.Tensor, token_ids: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Log-probability (N,) of each token in the state (N, H) that it is chosen in, at the sampling
    temperature."""

    def piece(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return -cross_entropy(_logits(model, states, temperature), ids, reduction="none")

    return _in_pieces(model, piece, hidden, token_ids)


def token_entropies(
    model: PreTrainedModel, hidden: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Entropy (N,) in nats of the distribution over the next token in each state (N, H)."""

    def piece(states: torch.Tensor) -> torch.Tensor:
        distribution = _logits(model, states, temperature).log_softmax(-1)
        return -(distribution.exp() * distribution).sum(-1)

    return _in_pieces(model, piece, hidden)


def _in_pieces(
    model: PreTrainedModel, function: Callable[..., torch.Tensor], *rows: torch.Tensor
) -> torch.Tensor:
    """``function`` of the rows, a piece at a time where their logits would be many. Pieces are
    computed again in the backward pass, so that no more than one lives then either."""
    limit = MAX_LOGITS[rows[0].device.type]
    size = max(limit // model.get_output_embeddings().weight.shape[0], 1)
    if len(rows[0]) <= size:
        return function(*rows)
    pieces = [
        checkpoint(
            function, *(tensor[start : start + size] for tensor in rows), use_reentrant=False
        )
        for start in range(0, len(rows[0]), size)
    ]
    return torch.cat(pieces)


class _DecoderOutput(BaseModelOutputWithPast):
    """A decoder's output in which all but the states is None, whatever an architecture asks for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _logits(model: PreTrainedModel, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
    """(N, vocabulary) in float32. The model's own forward makes them, with what is below the head
    replaced: some architectures cap or scale their logits, and a bare product with the head would
    not."""
    decoded = _DecoderOutput(last_hidden_state=hidden.unsqueeze(0))
    # A multimodal model's body is more than the decoder: Gemma 4's looks tokens up again.
    bodies = {id(body): body for body in (model.base_model, model.get_decoder())}.values()
    with contextlib.ExitStack() as stack:
        for body in bodies:
            stack.enter_context(replaced_forward(body, lambda *args, **kwargs: decoded))
        output = model(inputs_embeds=hidden.unsqueeze(0), use_cache=False)
    # Not [0], whose gradient would be a copy of all logits' gradients.
    logits: torch.Tensor = output.logits.flatten(0, 1).float()
    return logits if temperature == 1 else logits / temperature


@torch.no_grad()
def completion_logprobs(
    model: PreTrainedModel,
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    *,
    temperature: float,
    max_tokens_per_batch: int,
    pad_token_id: int,
    on_batch: Callable[[int], None] = lambda num_done: None,
) -> list[torch.Tensor]:
    """Per-token log-probabilities of each completion, one CPU tensor (its length,) a row.

    Args:
        on_batch: called with the number of rows just done.
    """
    lengths = [
        len(prompt) + len(completion)
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
    result: list[torch.Tensor] = [torch.empty(0)] * len(prompt_ids)
    for rows in token_budget_batches(lengths, max_tokens_per_batch):
        batch = collate(
            [prompt_ids[row] for row in rows],
            [completion_ids[row] for row in rows],
            pad_token_id,
            model.device,
        )
        with autocast(model.device), last_layer_at(model, batch.predictors):
            hidden = model.get_decoder()(input_ids=batch.input_ids, use_cache=False)
            values = token_logprobs(
                model, batch.select(hidden.last_hidden_state), batch.completion_ids, temperature
            )
        parts = values.cpu().split_with_sizes([len(completion_ids[row]) for row in rows])
        for row, part in zip(rows, parts, strict=True):
            result[row] = part
        on_batch(len(rows))
    return result
