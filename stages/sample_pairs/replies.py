"""The models' replies, one model in memory at a time."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS, Artifact, json_digest, write_atomically
from stages.core.chat import Prompt, decode_completion, encode_prompt
from stages.core.config import Compute, SamplePairsConfig
from stages.core.generation import generate
from stages.core.models import load_model, load_tokenizer, padding_id, pick_device

REPLIES_PER_SEQUENCE = 2
"""Replies sampled at once for each sequence of ``compute.micro_batch_size``: no gradients are kept,
so that more fit."""


class Replies(NamedTuple):
    """One model's replies."""

    texts: list[list[str]]
    """To each prompt: ``num_replies`` at each temperature."""
    num_cut: int
    """How many the model had not ended after ``max_completion_length`` tokens."""


def sample_replies(
    models: dict[str, Artifact],
    prompts: list[Prompt],
    config: SamplePairsConfig,
    compute: Compute,
    out_dir: Path,
) -> dict[str, Replies]:
    """Each model's replies to each prompt. Those of a model that had finished when an earlier
    attempt was killed are taken over.

    Raises:
        UserError: a model cannot be loaded.
    """
    each = len(prompts) * config.num_replies * len(config.temperatures)
    folder = out_dir / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    replies = {}
    for place, (name, model) in enumerate(models.items()):
        path = folder / f"replies-{name}.json"
        if path.exists():  # written atomically, and the folder's key names all that decides it
            replies[name] = Replies(*json.loads(path.read_text(encoding="utf-8")))
            print(f"{name}: the replies of an earlier attempt are taken over", flush=True)
            continue

        def advance(count: int, name: str = name, before: int = place * each) -> None:
            tracking.report_progress(before + count, each * len(models), doing=f"{name} replies")

        replies[name] = _replies(name, model, prompts, config, compute, advance)
        write_atomically(path, json.dumps(replies[name]))
        gc.collect()  # before the next one is loaded
    return replies


# ------------------------------------------------------------------------------------ helpers


def _replies(
    name: str,
    artifact: Artifact,
    prompts: list[Prompt],
    config: SamplePairsConfig,
    compute: Compute,
    advance: Callable[[int], None],
) -> Replies:
    tokenizer = load_tokenizer(artifact.locate())
    model = load_model(artifact.locate(), pick_device(compute))
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    prompt_ids = [ids for ids in encoded for _ in range(config.num_replies)]
    texts: list[list[str]] = [[] for _ in prompts]
    num_cut = 0
    for place, temperature in enumerate(config.temperatures):
        before = place * len(prompt_ids)
        sampled = generate(
            model,
            prompt_ids,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_id(tokenizer),
            temperature=temperature,
            uniforms=_uniforms(len(prompt_ids), config, name, temperature),
            batch_size=REPLIES_PER_SEQUENCE * compute.micro_batch_size,
            on_batch=lambda count, before=before: advance(before + count),
        )
        num_cut += sum(ids[-1] != tokenizer.eos_token_id for ids in sampled.ids)
        for index, ids in enumerate(sampled.ids):
            texts[index // config.num_replies].append(decode_completion(tokenizer, ids).strip())
    return Replies(texts, num_cut)


def _uniforms(
    num_replies: int, config: SamplePairsConfig, name: str, temperature: float
) -> torch.Tensor:
    """(replies, longest reply) numbers that decide the samples. Other ones for each model: by the
    same numbers models that are nearly alike would give the same replies."""
    digest = json_digest([config.seed, name, temperature])
    generator = torch.Generator().manual_seed(int(digest[:8], 16))
    return torch.rand(num_replies, config.max_completion_length, generator=generator)
