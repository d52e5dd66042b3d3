"""Batches of prompts with replies, and the log-probabilities of the replies' tokens."""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from stages.core.models import autocast


class SequenceBatch(NamedTuple):
    """Prompts padded on the left and completions padded on the right, so that all completions
    begin in the same column. P, C: longest prompt and completion of the batch."""

    input_ids: torch.Tensor
    """(B, P + C)"""
    attention_mask: torch.Tensor
    """(B, P + C), 1 at tokens, 0 at padding."""
    position_ids: torch.Tensor
    """(B, P + C)"""
    completion_mask: torch.Tensor
    """(B, C), True at the completion's tokens, EOS included."""

    @property
    def completion_ids(self) -> torch.Tensor:
        """(B, C)"""
        return self.input_ids[:, self.input_ids.shape[1] - self.completion_mask.shape[1] :]


def collate(
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    pad_token_id: int,
    device: torch.device,
) -> SequenceBatch:
    """Pad a list of prompts and completions to one batch."""
    prompt_length = max(map(len, prompt_ids))
    completion_length = max(map(len, completion_ids))
    shape = (len(prompt_ids), prompt_length + completion_length)
    input_ids = torch.full(shape, pad_token_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    for row, (prompt, completion) in enumerate(zip(prompt_ids, completion_ids, strict=True)):
        begin, end = prompt_length - len(prompt), prompt_length + len(completion)
        input_ids[row, begin:end] = torch.tensor(prompt + completion)
        attention_mask[row, begin:end] = 1
    return SequenceBatch(
        input_ids.to(device),
        attention_mask.to(device),
        (attention_mask.cumsum(-1) - 1).clamp(min=0).to(device),
        attention_mask[:, prompt_length:].bool().to(device),
    )


def token_logprobs(
    model: PreTrainedModel, batch: SequenceBatch, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each completion token, and the entropy of its distribution, both (B, C)
    and at the sampling temperature. Entries at padding mean nothing."""
    num_tokens = batch.completion_mask.shape[1]
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=num_tokens + 1,
    ).logits[:, :-1]
    # The logits at one position predict the next token.
    distribution = (logits.float() / temperature).log_softmax(-1)
    logprobs = distribution.gather(-1, batch.completion_ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = -(distribution.exp() * distribution).sum(-1)
    return logprobs, entropy


@torch.no_grad()
def completion_logprobs(
    model: PreTrainedModel,
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    *,
    temperature: float,
    batch_size: int,
    pad_token_id: int,
) -> list[torch.Tensor]:
    """Per-token log-probabilities of each completion, one CPU tensor (its length,) a row."""
    lengths = [
        len(prompt) + len(completion)
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
    order = sorted(range(len(prompt_ids)), key=lengths.__getitem__)
    result: list[torch.Tensor] = [torch.empty(0)] * len(prompt_ids)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate(
            [prompt_ids[row] for row in rows],
            [completion_ids[row] for row in rows],
            pad_token_id,
            model.device,
        )
        with autocast(model.device):
            logprobs, _ = token_logprobs(model, batch, temperature)
        for row, values, mask in zip(rows, logprobs, batch.completion_mask, strict=True):
            result[row] = values[mask].cpu()
    return result
