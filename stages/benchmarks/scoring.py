"""Log-probabilities of continuations, no token of what they share being read twice.

The options of a question share its text, and all questions of a task may share their beginning (an
instruction, worked examples). A question with its options is one row of a batch: a tree of tokens,
laid out one after the other, in which each token attends to its ancestors alone. What all rows
begin with is read once, and its keys and values serve them all.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from stages.core.batching import token_budget_batches
from stages.core.last_layer import last_layer_at
from stages.core.logprobs import completion_logprobs, token_logprobs
from stages.core.models import autocast, supports_bf16

MIN_SHARED_TOKENS = 24
"""A shorter common beginning is not worth a pass of its own."""
TOKENS_PER_SEQUENCE = 256
"""Tokens that one sequence of a micro batch counts for."""
CPU_TOKENS = 1024
"""Tokens of a batch on CPUs: more no longer fit their caches."""
TOLERANCE = {False: 1e-3, True: 0.3}
"""How far a log-probability of a tree may lie from the plain sequence's, nats a token; by
whether the model computes in bfloat16."""

Pair = tuple[list[int], list[int]]
"""A context and a continuation; neither is empty."""


class Tree(NamedTuple):
    """A question with its options. Token 0 has no parent, and parents stand before their children;
    the last token of an option is only predicted."""

    tokens: list[int]
    parents: list[int]
    predictors: list[list[int]]
    """For each option, the token from which each of its tokens is predicted."""
    targets: list[list[int]]

    @property
    def is_chain(self) -> bool:
        return all(parent == place - 1 for place, parent in enumerate(self.parents))


class TreeScorer:
    """Scores pairs with one model: as trees where the model takes these as its sequences one by
    one, which most architectures do, else one by one."""

    def __init__(self, model: PreTrainedModel, micro_batch_size: int, pad_token_id: int) -> None:
        self._model, self._pad_token_id = model, pad_token_id
        budget = micro_batch_size * TOKENS_PER_SEQUENCE
        self._max_tokens = min(budget, CPU_TOKENS) if model.device.type == "cpu" else budget
        config = model.config.get_text_config()
        attends_to_all = set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        is_windowed = getattr(config, "sliding_window", None) is not None
        self.supports_trees = attends_to_all and not is_windowed and self._agrees()

    @torch.no_grad()
    def score(
        self, pairs: Sequence[Pair], advance: Callable[[int], None] = lambda count: None
    ) -> list[float]:
        """The log-probability of each pair's continuation, in nats.

        Args:
            advance: called with the number of pairs just scored.
        """
        by_context: dict[tuple[int, ...], list[int]] = {}
        for index, (context, _) in enumerate(pairs):
            by_context.setdefault(tuple(context), []).append(index)
        groups = list(by_context.values())
        if not self.supports_trees:
            groups = [[index] for index in range(len(pairs))]
        trees = [grow(pairs[group[0]][0], [pairs[index][1] for index in group]) for group in groups]
        prefix = self._prefix(trees)
        scores = [0.0] * len(pairs)
        lengths = [len(tree.tokens) - len(prefix.tokens) for tree in trees]
        for rows in token_budget_batches(lengths, self._max_tokens):
            values = self._batch([trees[row] for row in rows], prefix)
            for row, results in zip(rows, values, strict=True):
                for index, value in zip(groups[row], results, strict=True):
                    scores[index] = value
            advance(sum(len(groups[row]) for row in rows))
        return scores

    # -------------------------------------------------------------------------------- helpers

    def _batch(self, trees: Sequence[Tree], prefix: "_Prefix") -> list[list[float]]:
        """The log-probabilities of the options of each tree."""
        start = len(prefix.tokens)
        width = max(len(tree.tokens) for tree in trees) - start
        device = self._model.device
        ids = torch.full((len(trees), width), self._pad_token_id)
        predictors: list[int] = []
        targets: list[int] = []
        for row, tree in enumerate(trees):
            ids[row, : len(tree.tokens) - start] = torch.tensor(tree.tokens[start:])
            for places, tokens in zip(tree.predictors, tree.targets, strict=True):
                predictors += [row * width + place - start for place in places]
                targets += tokens
        arguments: dict[str, Any] = {"use_cache": False}
        if start:
            cache = deepcopy(prefix.cache)
            cache.batch_repeat_interleave(len(trees))
            arguments = {"use_cache": True, "past_key_values": cache}
        if any(not tree.is_chain for tree in trees):
            arguments |= self._layout(trees, start, width)
        where = torch.tensor(predictors, device=device)
        with autocast(device), last_layer_at(self._model, where):
            output = self._model.get_decoder()(input_ids=ids.to(device), **arguments)
            hidden = output.last_hidden_state.flatten(0, 1)[where]
            target_ids = torch.tensor(targets, device=device)
            values = token_logprobs(self._model, hidden, target_ids, 1.0)
        counts = [len(tokens) for tree in trees for tokens in tree.targets]
        sums = [part.double().sum().item() for part in values.cpu().split_with_sizes(counts)]
        remaining = iter(sums)
        return [[next(remaining) for _ in tree.targets] for tree in trees]

    def _layout(self, trees: Sequence[Tree], start: int, width: int) -> dict[str, torch.Tensor]:
        """Which token attends to which (True: it does), and each token's position in the text."""
        attends = torch.zeros(len(trees), 1, width, start + width, dtype=torch.bool)
        positions = torch.zeros(len(trees), width, dtype=torch.long)
        for row, tree in enumerate(trees):
            depths = _depths(tree)
            end = len(tree.tokens)
            attends[row, 0, : end - start, :end] = _ancestors(tree)[start:]
            positions[row, : end - start] = depths[start:]
        # Padding attends to itself: attention to nothing is not a number.
        places = torch.arange(width)
        attends[:, 0, places, start + places] = True
        attends, positions = attends.to(self._model.device), positions.to(self._model.device)
        if self._model.config._attn_implementation != "sdpa":  # it adds the mask to the scores
            low = torch.finfo(torch.float32).min
            attends = torch.zeros(attends.shape, device=attends.device).masked_fill(~attends, low)
        return {"attention_mask": attends, "position_ids": positions}

    def _prefix(self, trees: Sequence[Tree]) -> "_Prefix":
        """What all trees begin with, up to the first token from which anything is predicted."""
        if len(trees) < 2 or not self.supports_trees:
            return _Prefix([], None)
        first, last = min(tree.tokens for tree in trees), max(tree.tokens for tree in trees)
        end = min(min(map(min, tree.predictors)) for tree in trees)
        shared = next((i for i in range(min(end, len(last))) if first[i] != last[i]), end)
        if shared < MIN_SHARED_TOKENS:
            return _Prefix([], None)
        return self._read(first[:shared])

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether a tree, with and without keys and values from before, gives what its sequences
        give one by one."""
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        ids = [(7 * number + 3) % vocabulary for number in range(22)]
        context, targets = ids[:12], [ids[12:16], [*ids[12:14], *ids[18:20]], ids[20:22]]
        plain = completion_logprobs(
            self._model,
            [context] * len(targets),
            targets,
            temperature=1.0,
            max_tokens_per_batch=self._max_tokens,
            pad_token_id=self._pad_token_id,
        )
        tree = grow(context, targets)
        try:
            before = self._read(context[:6])
            found = [*self._batch([tree], _Prefix([], None)), *self._batch([tree] * 2, before)]
        except Exception:  # of an architecture that has no such mask, or no such cache
            return False
        tolerance = TOLERANCE[supports_bf16(self._model.device)]
        return all(
            abs(value - expected.double().sum().item()) <= tolerance * len(expected)
            for result in found
            for value, expected in zip(result, plain, strict=True)
        )

    def _read(self, tokens: list[int]) -> "_Prefix":
        ids = torch.tensor([tokens], device=self._model.device)
        with autocast(self._model.device):
            output = self._model.get_decoder()(input_ids=ids, use_cache=True)
        return _Prefix(tokens, output.past_key_values)


class _Prefix(NamedTuple):
    tokens: list[int]
    cache: Any


def grow(context: Sequence[int], continuations: Sequence[Sequence[int]]) -> Tree:
    """The tree of a context and its continuations; what these share is in it once."""
    tokens = list(context)
    parents = list(range(-1, len(tokens) - 1))
    children: dict[tuple[int, int], int] = {}
    predictors = []
    for continuation in continuations:
        place, path = len(context) - 1, []
        for token in continuation:
            path.append(place)
            if len(path) == len(continuation):
                break
            if (place, token) not in children:
                children[place, token] = len(tokens)
                tokens.append(token)
                parents.append(place)
            place = children[place, token]
        predictors.append(path)
    return Tree(tokens, parents, predictors, [list(item) for item in continuations])


def _depths(tree: Tree) -> torch.Tensor:
    depths: list[int] = []
    for parent in tree.parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return torch.tensor(depths)


def _ancestors(tree: Tree) -> torch.Tensor:
    """(N, N): whether the token of the column is the row's or one of its ancestors."""
    size = len(tree.tokens)
    straight = next((i for i, parent in enumerate(tree.parents) if parent != i - 1), size)
    attends = torch.eye(size, dtype=torch.bool)
    attends[:straight, :straight] = torch.ones(straight, straight, dtype=torch.bool).tril()
    for place in range(straight, size):
        attends[place] |= attends[tree.parents[place]]
    return attends
