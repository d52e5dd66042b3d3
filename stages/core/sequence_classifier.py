"""Sequence classifiers in transformers' format: reward models that people bring, with one output,
and classifiers of text with several labels.

Scores are those that the classifier gives each text by itself, with its own tokenizer, chat
template and padding token.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stages.core.batching import token_budget_batches
from stages.core.chat import Prompt, prompt_text
from stages.core.errors import UserError
from stages.core.models import autocast, max_positions
from stages.core.scoring import TOKENS_PER_BATCH, pad_right


class SequenceClassifier:
    """A sequence classifier and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        names = model.config.id2label
        self.labels = tuple(str(names[output]) for output in sorted(names))
        """Names of the outputs."""
        self.max_length = min(max_positions(model), tokenizer.model_max_length)
        """Longest text, tokens."""
        self._pad_token_id = getattr(model.config.get_text_config(), "pad_token_id", None)
        special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special_tokens = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[list[int]]:
        """Token ids of each dialogue: prompt and reply in the chat template, or joined by a newline
        where the tokenizer has none."""
        pairs = zip(prompts, completions, strict=True)
        if self.tokenizer.chat_template is None:
            texts = [
                self._plain(f"{prompt_text(prompt)}\n{completion}") for prompt, completion in pairs
            ]
        else:
            texts = [self._dialogue(prompt, completion) for prompt, completion in pairs]
        # The template has its special tokens in its text.
        add_special_tokens = self.tokenizer.chat_template is None
        return [
            self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
            for text in texts
        ]

    def encode_texts(self, texts: Sequence[str], *, cut: bool = False) -> list[list[int]]:
        """Token ids of texts that stand alone, as a classifier of texts is trained on them.

        Args:
            cut: leave out the end of texts longer than ``max_length``.
        """
        limit = {"truncation": True, "max_length": self.max_length} if cut else {}
        pad = self._pad_token_id or 0
        return [
            # Some tokenizers make nothing of an empty text.
            self.tokenizer(self._plain(text), verbose=False, **limit)["input_ids"] or [pad]
            for text in texts
        ]

    def score_tokens(self, sequences: Sequence[list[int]]) -> list[float]:
        """Raw scores of what ``encode`` returned: the first output."""
        scores: list[float] = self.logits(sequences)[:, 0].tolist()
        return scores

    def log_odds(self, sequences: Sequence[list[int]], label: str) -> list[float]:
        """log p − log(1 − p) for the probability p of a label, of each encoded text.

        Outputs that exclude each other share a softmax; those of a classifier whose labels may
        occur together are log-odds already.
        """
        wanted = self.labels.index(label)
        logits = self.logits(sequences).double()
        if self.model.config.problem_type != "multi_label_classification":
            others = [output for output in range(len(self.labels)) if output != wanted]
            logits = logits - logits[:, others].logsumexp(dim=1, keepdim=True)
        values: list[float] = logits[:, wanted].tolist()
        return values

    @torch.no_grad()
    def logits(self, sequences: Sequence[list[int]]) -> torch.Tensor:
        """All outputs of encoded texts, shape (N, number of labels), in float32 on the CPU."""
        logits = torch.zeros(len(sequences), len(self.labels))
        lengths = [len(sequence) for sequence in sequences]
        for rows in token_budget_batches(lengths, TOKENS_PER_BATCH[self.model.device.type]):
            logits[rows] = self._batch_logits([sequences[row] for row in rows]).cpu()
        return logits

    def _dialogue(self, prompt: Prompt, completion: str) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        dialogue = [*messages, {"role": "assistant", "content": completion}]
        text: str = self.tokenizer.apply_chat_template(
            [message | {"content": self._plain(message["content"])} for message in dialogue],
            tokenize=False,
        )
        return text

    def _plain(self, text: str) -> str:
        """The text with special tokens that are written out in it broken up by a space: a policy
        must not learn to end its turn and begin another."""
        return self._special_tokens.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _batch_logits(self, sequences: list[list[int]]) -> torch.Tensor:
        ids, lengths = pad_right(sequences, self._padding(sequences))
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        device = self.model.device
        with autocast(device):
            output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        logits: torch.Tensor = output.logits.float()
        return logits

    def _padding(self, sequences: list[list[int]]) -> int:
        """The model's own padding token, even where it is EOS: transformers scores the last token
        that is not padding, so the head was trained on the token before EOS then.

        A model without one scores the very last token. It gets a token that no sequence ends in.
        """
        if self._pad_token_id is not None:
            return int(self._pad_token_id)
        last = {sequence[-1] for sequence in sequences}
        pad = next(id for id in range(len(last) + 1) if id not in last)
        self.model.config.get_text_config().pad_token_id = pad
        return pad


def load_sequence_classifier(folder: Path, device: torch.device) -> SequenceClassifier:
    """Load a classifier and its tokenizer, in float32 and evaluation mode.

    Raises:
        UserError: weights are missing.
        Exception: whatever transformers raises for a damaged folder.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(f"{folder}: weights are missing: {missing}")
    model.config.use_cache = False
    return SequenceClassifier(model.to(device).eval().requires_grad_(False), tokenizer)
