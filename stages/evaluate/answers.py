"""What one model gives: its replies, and how likely it finds held-out text and replies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.config import Compute, EvaluateConfig
from stages.core.generation import generate
from stages.core.models import load_model, padding_id, pick_device
from stages.core.scorer_places import reward_model_base
from stages.evaluate import held_out
from stages.evaluate.held_out import Encoded
from stages.evaluate.task import HELD_OUT, Task

REPLIES_AT_ONCE = 32
"""Replies sampled together. Not the micro batch: which random numbers a reply gets depends on the
batch, and one configuration should give the same replies on every machine."""
SAMPLING_STEPS = 8
"""A sampled reply takes about as long as this many scored ones; for the time left."""


@dataclass
class Progress:
    """Steps done of all steps, told to the flow."""

    total: int
    done: int = 0
    doing: str = ""

    def tell(self, doing: str) -> None:
        """What is done now, where single steps are not counted."""
        self.doing = doing
        self.advance(0)

    def advance(self, count: int) -> None:
        self.done += count
        tracking.report_progress(self.done, self.total, doing=self.doing)


@dataclass(frozen=True)
class Answers:
    """What one model gave."""

    replies: dict[str, list[list[int]]]
    """By set of prompts: token ids, EOS at the end of replies that the model ended itself."""
    logprobs: dict[str, list[torch.Tensor]]
    """By the name of the model that sampled them: log-probabilities of the tokens of the replies to
    the held-out prompts under this model, at the sampling temperature."""
    bits_per_byte: float | None
    sft_loss: float | None


def model_folder(model: Artifact) -> Path:
    """The folder with the model's tokenizer: its own, or an adapter's base.

    Raises:
        UserError: the adapter's base is gone or has changed.
    """
    return reward_model_base(model.locate()) if _is_adapter(model) else model.locate()


def ask(
    name: str,
    artifact: Artifact,
    others: Mapping[str, list[list[int]]],
    task: Task,
    config: EvaluateConfig,
    compute: Compute,
    progress: Progress,
) -> Answers:
    """Load one model, let it predict, reply, and rate its own and the ``others``' replies to the
    held-out prompts.

    Raises:
        UserError: the model cannot be loaded.
    """
    model = _load(artifact, pick_device(compute))
    pad_token_id = padding_id(task.tokenizer)

    def logprobs(encoded: Encoded, temperature: float) -> list[torch.Tensor]:
        return held_out.logprobs(
            model,
            encoded,
            temperature=temperature,
            micro_batch_size=compute.micro_batch_size,
            pad_token_id=pad_token_id,
            advance=progress.advance,
        )

    progress.doing = f"{name} predicts held-out text"
    documents = logprobs(task.documents, 1.0)
    demonstrations = logprobs(task.demonstrations, 1.0)
    replies = {}
    for prompts, prompt_set in task.prompt_sets.items():
        progress.doing = f"{name} replies ({prompts.replace('_', '-')} prompts)"
        replies[prompts] = generate(
            model,
            prompt_set.ids,
            eos_token_id=task.tokenizer.eos_token_id,
            pad_token_id=pad_token_id,
            temperature=config.temperature,
            uniforms=torch.rand(
                len(prompt_set.ids),
                config.max_completion_length,
                generator=torch.Generator().manual_seed(config.seed),
            ),
            batch_size=REPLIES_AT_ONCE,
            on_batch=_sampling_progress(progress),
        ).ids
    progress.doing = f"{name} rates replies"
    rated = {name: replies[HELD_OUT], **others}
    prompt_ids = task.prompt_sets[HELD_OUT].ids
    return Answers(
        replies,
        {
            sampler: logprobs(Encoded(prompt_ids, ids), config.temperature)
            for sampler, ids in rated.items()
        },
        held_out.bits_per_byte(documents, task.num_bytes) if task.num_bytes else None,
        held_out.loss_per_token(demonstrations) if demonstrations else None,
    )


# ------------------------------------------------------------------------------------ helpers


def _is_adapter(model: Artifact) -> bool:
    return (model.locate() / "adapter_config.json").is_file()


def _load(artifact: Artifact, device: torch.device) -> PreTrainedModel:
    model = load_model(model_folder(artifact), device)
    if not _is_adapter(artifact):
        return model
    merged: PreTrainedModel = PeftModel.from_pretrained(model, artifact.locate()).merge_and_unload()
    return merged.eval()


def _sampling_progress(progress: Progress) -> Callable[[int], None]:
    """For ``generate``, which says how many replies are done in all."""
    before = progress.done
    return lambda count: progress.advance(before + SAMPLING_STEPS * count - progress.done)
