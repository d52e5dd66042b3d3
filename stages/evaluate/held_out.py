"""How well a language model predicts held-out text, from its tokens' log-probabilities."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.core.chat import Prompt, encode_completion, encode_prompt, encode_text
from stages.core.logprobs import completion_logprobs

MAX_CONTEXT = 1024
"""Longest context of one prediction, tokens: longer ones change the figure little and cost memory
(positions times vocabulary)."""
TOKENS_PER_SEQUENCE = 256
"""Tokens that one sequence of a micro batch counts for."""


class Encoded(NamedTuple):
    """Token sequences whose second part a model has to predict from all that stands before."""

    contexts: list[list[int]]
    targets: list[list[int]]
    """Same length as ``contexts``; no target is empty."""


def encode_documents(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> tuple[Encoded, int]:
    """Cut documents into chunks of at most ``max_length`` tokens in which each token is predicted
    exactly once.

    A document's first token follows the BOS token (EOS where the tokenizer has none), a later
    chunk's first token the last of the chunk before.

    Returns:
        The chunks, and the documents' size in bytes of UTF-8.
    """
    start_id = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    encoded = Encoded([], [])
    for text in texts:
        ids = encode_text(tokenizer, text)
        for start in range(0, len(ids), max_length - 1):
            encoded.contexts.append([ids[start - 1] if start else start_id])
            encoded.targets.append(ids[start : start + max_length - 1])
    return encoded, sum(len(text.encode("utf-8", errors="replace")) for text in texts)


def encode_demonstrations(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[Prompt, str]], max_length: int
) -> Encoded:
    """Prompts as contexts and completions with EOS as targets; longer pairs than ``max_length``
    tokens are left out."""
    encoded = Encoded([], [])
    for prompt, completion in pairs:
        context, target = encode_prompt(tokenizer, prompt), encode_completion(tokenizer, completion)
        if len(context) + len(target) <= max_length:
            encoded.contexts.append(context)
            encoded.targets.append(target)
    return encoded


def logprobs(
    model: PreTrainedModel,
    encoded: Encoded,
    *,
    temperature: float,
    micro_batch_size: int,
    pad_token_id: int,
    advance: Callable[[int], None],
) -> list[torch.Tensor]:
    """Log-probabilities (nats) of each target's tokens, one CPU tensor (its length,) a sequence.

    Args:
        advance: called with the number of sequences just done.
    """
    return completion_logprobs(
        model,
        encoded.contexts,
        encoded.targets,
        temperature=temperature,
        max_tokens_per_batch=micro_batch_size * TOKENS_PER_SEQUENCE,
        pad_token_id=pad_token_id,
        on_batch=advance,
    )


def bits_per_byte(values: Sequence[torch.Tensor], num_bytes: int) -> float:
    """Negative log-likelihood of all tokens in bits, over the bytes they stand for. Unlike the loss
    per token it does not depend on the tokenizer (Gao et al. 2020, section 3.1)."""
    return -_total(values) / math.log(2) / num_bytes


def loss_per_token(values: Sequence[torch.Tensor]) -> float:
    """Mean negative log-likelihood, nats per token."""
    return -_total(values) / sum(map(len, values))


def _total(values: Sequence[torch.Tensor]) -> float:
    return math.fsum(value.double().sum().item() for value in values)
