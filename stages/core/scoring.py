"""Scorers: anything that rates replies, through one call
``score(prompts, completions) -> list[float]``.

A reward model is a folder that names what it was trained on and holds probes: texts with their
scores. Loading recomputes them, so that a lost or random head cannot pass silently.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from stages.core.batching import token_budget_batches
from stages.core.chat import Prompt, encode_completion, encode_prompt
from stages.core.errors import UserError
from stages.core.fused_lora import fused_adapter
from stages.core.last_layer import last_layer_at
from stages.core.launch import WARNING_PREFIX
from stages.core.models import (
    autocast,
    check_same_tokenizer,
    load_model,
    load_tokenizer,
    max_positions,
    padding_id,
    supports_bf16,
)
from stages.core.scorer_places import MANIFEST_FILE

Scorer = Callable[[Sequence[Prompt], Sequence[str]], list[float]]

REWARD_ADAPTER = "reward"
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 16_384}
"""Tokens, padding included, that go through a scoring model at once: as many as fit a CPU's caches,
as many as keep a GPU busy."""
PROBE_TOLERANCE = 1e-3
"""Largest allowed difference of a probe's score, in standard deviations of the score."""
PROBE_TOLERANCE_BF16 = 0.15
"""The same where forward passes run in bfloat16."""


class Probe(BaseModel):
    """A reply and the score that the reward model gave it when it was trained."""

    prompt: Prompt
    completion: str
    score: float


class RewardModelManifest(BaseModel):
    """What ``reward_model.json`` says of the adapter and head beside it."""

    model_config = ConfigDict(extra="forbid")

    base_digest: str
    """Digest of the merged SFT model that the adapter belongs to."""
    tokenizer_digest: str
    """Vocabulary, special tokens and chat template."""
    max_length: int
    """Longest prompt and reply it was trained on, tokens."""
    score_mean: float
    """Mean raw score of the SFT model's own samples."""
    score_std: float
    """Standard deviation of the raw score over the SFT model's own samples."""
    probes: list[Probe] = Field(min_length=1)


class RewardModel:
    """A LoRA adapter on a causal language model's backbone and a linear head on the hidden state
    of the last token."""

    def __init__(
        self,
        model: PeftModel,
        head: nn.Linear,
        tokenizer: PreTrainedTokenizerBase,
        manifest: RewardModelManifest,
    ) -> None:
        self.model = model
        self.head = head
        self.tokenizer = tokenizer
        self.score_mean = manifest.score_mean
        self.score_std = manifest.score_std
        self.num_cut = 0
        """Texts so far that were longer than the model's positions."""

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        max_tokens_per_batch: int | None = None,
    ) -> list[float]:
        """Raw scores of replies, each taken as finished (EOS is appended).

        Of a text longer than the model's positions the first tokens are scored, with EOS as the
        last: as if the reply had ended there. The head has learned to read the state at EOS after
        the prompt; at another token, or behind a prompt without its beginning, it would give a
        number that means nothing. Where the prompt alone is that long, its reply has no part in the
        score. A warning is printed the first time.

        Args:
            max_tokens_per_batch: tokens that go through the model at once, no effect on the result
                but rounding; None: what suits the device.
        """
        sequences = self._cut(self.encode(prompts, completions))
        return self.score_tokens(sequences, max_tokens_per_batch)

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt with its reply and EOS."""
        return [
            encode_prompt(self.tokenizer, prompt) + encode_completion(self.tokenizer, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def score_tokens(
        self, sequences: Sequence[list[int]], max_tokens_per_batch: int | None = None
    ) -> list[float]:
        """Raw scores of what ``encode`` returned, within the model's positions."""
        device = self.model.device
        budget = max_tokens_per_batch or TOKENS_PER_BATCH[device.type]
        with autocast(device), fused_adapter(self.model, REWARD_ADAPTER):
            return score_in_batches(sequences, self._score_batch, budget)

    def normalized(self, scores: Sequence[float]) -> list[float]:
        """Scores in standard deviations from the SFT model's mean."""
        return [(score - self.score_mean) / self.score_std for score in scores]

    def _cut(self, sequences: list[list[int]]) -> list[list[int]]:
        limit = max_positions(self.model)
        num_long = sum(len(sequence) > limit for sequence in sequences)
        if num_long and not self.num_cut:
            print(
                f"{WARNING_PREFIX}reward model: {num_long} of {len(sequences)} texts exceed its "
                f"{limit} tokens and are scored as if their replies ended there; later ones, too",
                flush=True,
            )
        self.num_cut += num_long
        return [
            sequence if len(sequence) <= limit else [*sequence[: limit - 1], sequence[-1]]
            for sequence in sequences
        ]

    @torch.no_grad()
    def _score_batch(self, sequences: list[list[int]]) -> torch.Tensor:
        device = self.model.device
        ids, lengths = pad_right(sequences, padding_id(self.tokenizer))
        last = (torch.arange(len(sequences)) * ids.shape[1] + lengths - 1).to(device)
        model = self.model.get_base_model()
        with last_layer_at(model, last):
            # No mask: under causal attention the padding on the right changes nothing before it,
            # and without one torch takes its fastest attention.
            output = model.get_decoder()(input_ids=ids.to(device), use_cache=False)
        hidden = output.last_hidden_state.flatten(0, 1)[last]
        with torch.autocast(device.type, enabled=False):  # small, and worth the precision
            scores: torch.Tensor = self.head(hidden.float()).squeeze(-1)
        return scores


def score_in_batches(
    sequences: Sequence[list[int]],
    score_batch: Callable[[list[list[int]]], torch.Tensor],
    max_tokens: int,
) -> list[float]:
    """One score a sequence, by ``score_batch`` of sequences of similar length: it returns a tensor
    (B,) for B of them, which padded take up at most ``max_tokens``."""
    scores = [0.0] * len(sequences)
    for rows in token_budget_batches([len(sequence) for sequence in sequences], max_tokens):
        values = score_batch([sequences[row] for row in rows])
        for row, value in zip(rows, values.tolist(), strict=True):
            scores[row] = value
    return scores


def pad_right(sequences: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, longest) filled up with ``pad``, and the lengths (B,)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    return torch.tensor([row + [pad] * (longest - len(row)) for row in sequences]), lengths


def load_reward_model(folder: Path, model_folder: Path, device: torch.device) -> RewardModel:
    """Load a reward model onto a copy of its base model.

    Raises:
        UserError: see ``attach_reward_model``.
    """
    tokenizer = load_tokenizer(model_folder)
    config = _adapter_config(folder)
    model = get_peft_model(load_model(model_folder, device), config, adapter_name=REWARD_ADAPTER)
    return _attach(model, folder, tokenizer)


def attach_reward_model(
    model: PeftModel, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> RewardModel:
    """Load a reward model as one more adapter of a model that is in memory already.

    Raises:
        UserError: the folder is incomplete, made for another model or tokenizer, or its scores of
            the probes come out differently.
    """
    model.add_adapter(REWARD_ADAPTER, _adapter_config(folder))
    return _attach(model, folder, tokenizer)


def read_manifest(folder: Path) -> RewardModelManifest:
    """The manifest of a reward model's folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
        return RewardModelManifest.model_validate_json(text)
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{folder}: not a reward model of this pipeline (no sound {MANIFEST_FILE}); "
            "make one with the stage reward_model"
        ) from error


def _adapter_config(folder: Path) -> LoraConfig:
    """The adapter's configuration, without the head: a causal model has no place for it."""
    read_manifest(folder)
    try:
        config = LoraConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: the reward model has no adapter; train it again") from error
    config.modules_to_save = None
    config.task_type = None
    config.base_model_name_or_path = None  # the manifest's digest says which base it is
    config.inference_mode = True
    config.lora_dropout = 0.0
    return config


def _attach(model: PeftModel, folder: Path, tokenizer: PreTrainedTokenizerBase) -> RewardModel:
    manifest = read_manifest(folder)
    check_same_tokenizer(tokenizer, manifest.tokenizer_digest, f"the reward model {folder}")
    try:
        state = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the reward model has no weights; train it again") from error
    heads = [key for key in state if key.endswith("score.weight")]
    if len(heads) != 1:
        raise UserError(f"{folder}: the reward model has no score head; train it again")
    weight = state.pop(heads[0])
    misfit = UserError(f"{folder}: the reward model's adapter does not fit the base model")
    try:
        loaded = set_peft_model_state_dict(model, state, adapter_name=REWARD_ADAPTER)
    except RuntimeError as error:  # other shapes
        raise misfit from error
    missing = [key for key in loaded.missing_keys if f".{REWARD_ADAPTER}." in key]
    if loaded.unexpected_keys or missing:
        raise misfit
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight.data = weight
    head.requires_grad_(False).to(model.device)
    for key, parameter in model.named_parameters():
        if f".{REWARD_ADAPTER}." in key:
            parameter.requires_grad_(False)
    reward_model = RewardModel(model, head, tokenizer, manifest)
    _check_probes(reward_model, manifest, folder)
    return reward_model


def _check_probes(reward_model: RewardModel, manifest: RewardModelManifest, folder: Path) -> None:
    scores = reward_model.score(
        [probe.prompt for probe in manifest.probes],
        [probe.completion for probe in manifest.probes],
    )
    is_bf16 = supports_bf16(reward_model.model.device)
    tolerance = (PROBE_TOLERANCE_BF16 if is_bf16 else PROBE_TOLERANCE) * manifest.score_std
    differences = [
        abs(score - probe.score) for score, probe in zip(scores, manifest.probes, strict=True)
    ]
    if not all(difference <= tolerance for difference in differences):  # false for NaN, too
        raise UserError(
            f"{folder}: a probe scores {max(differences):.3g} away from its record "
            f"(allowed {tolerance:.3g}); "
            "the head, adapter or base model is not the one that was trained"
        )
