"""What every model is asked: prompts to answer and texts to predict, encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from stages.core.artifacts import Artifact
from stages.core.chat import Prompt, encode_prompt
from stages.core.config import EvaluateConfig
from stages.core.contracts import EvaluateInputs
from stages.core.errors import UserError
from stages.evaluate import held_out
from stages.evaluate.data import held_out_rows
from stages.evaluate.held_out import Encoded, encode_demonstrations, encode_documents
from stages.evaluate.measurements import Missing
from stages.evaluate.safety import read_prompts

HELD_OUT, REFERENCES, TOXICITY, REFUSAL = "held_out", "references", "toxicity", "refusal"


@dataclass(frozen=True)
class PromptSet:
    """Prompts that every model answers."""

    prompts: list[Prompt]
    ids: list[list[int]]
    references: list[str] = field(default_factory=list)
    """The replies that people gave, where they did."""


@dataclass(frozen=True)
class Task:
    """What every model is asked, encoded with the SFT model's tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    prompt_sets: dict[str, PromptSet]
    documents: Encoded
    num_bytes: int
    demonstrations: Encoded
    missing: tuple[Missing, ...]

    @property
    def num_prompts(self) -> int:
        return sum(len(prompts.ids) for prompts in self.prompt_sets.values())


def prepare(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> Task:
    """Choose and encode; prompts and demonstrations too long for the model in ``folder`` are left
    out.

    Raises:
        UserError: there are no held-out prompts, or none leaves room for a reply.
    """
    datasets, limit, seed = inputs.datasets, config.max_held_out_records, config.seed
    model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    max_length = int(getattr(model_config, "max_position_embeddings", None) or 2**31)
    room = max_length - config.max_completion_length
    rows = held_out_rows(datasets.prompts, config.num_prompts, seed)
    if not rows:
        raise UserError(
            "evaluate: there are no held-out prompts, which every model has to answer; give "
            "collect.prompts.held_out_paths or a collect.prompts.held_out_share above 0"
        )
    prompt_sets = {HELD_OUT: _prompt_set(tokenizer, [row["prompt"] for row in rows], room)}
    if not prompt_sets[HELD_OUT].ids:
        raise UserError(
            f"evaluate: none of {len(rows)} held-out prompts leaves room for a reply of "
            f"{config.max_completion_length} tokens within the model's {max_length}; "
            "give shorter prompts (collect.prompts) or lower evaluate.max_completion_length"
        )
    missing = _further_prompts(config, inputs, tokenizer, room, prompt_sets)
    texts = [row["text"] for row in held_out_rows(datasets.documents, limit, seed)]
    longest = min(max_length, held_out.MAX_CONTEXT)
    documents, num_bytes = encode_documents(tokenizer, texts, longest)
    pairs = [(row["prompt"], row["completion"]) for row in held_out_rows(datasets.sft, limit, seed)]
    return Task(
        tokenizer=tokenizer,
        prompt_sets=prompt_sets,
        documents=documents,
        num_bytes=num_bytes,
        demonstrations=encode_demonstrations(tokenizer, pairs, longest),
        missing=missing,
    )


# ------------------------------------------------------------------------------------ helpers


def _further_prompts(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    tokenizer: PreTrainedTokenizerBase,
    room: int,
    prompt_sets: dict[str, PromptSet],
) -> tuple[Missing, ...]:
    """Add the sets that not every run has; return why others are missing."""
    missing = []
    rows = held_out_rows(inputs.datasets.sft, config.num_references, config.seed)
    if rows:
        references = [row["completion"] for row in rows]
        found = _prompt_set(tokenizer, [row["prompt"] for row in rows], room, references)
        if found.ids:
            prompt_sets[REFERENCES] = found
    if REFERENCES not in prompt_sets:
        reason = (
            "evaluate.num_references is 0"
            if not config.num_references
            else "there are no held-out demonstrations that leave room for a reply"
        )
        missing.append(Missing("replies compared with references", reason))
    given: dict[str, tuple[Artifact, ...]] = {REFUSAL: inputs.refusal_prompts}
    # Without a classifier nothing could be said of the replies to toxicity prompts.
    if inputs.classifier is not None:
        given[TOXICITY] = inputs.toxicity_prompts
    for name, files in given.items():
        what = {TOXICITY: "toxicity on toxicity prompts", REFUSAL: "refusals"}[name]
        if not files:
            missing.append(Missing(what, f"evaluate.safety.{name}_prompts names no file"))
            continue
        try:
            paths = [file.locate() for file in files]
            prompts = read_prompts(paths, config.safety.num_prompts, config.seed)
        except (UserError, OSError) as error:
            missing.append(Missing(what, str(error), failed=True))
            continue
        found = _prompt_set(tokenizer, prompts, room)
        if found.ids:
            prompt_sets[name] = found
        else:
            missing.append(Missing(what, "no prompt leaves room for a reply", failed=True))
    return tuple(missing)


def _prompt_set(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    room: int,
    references: Sequence[str] = (),
) -> PromptSet:
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    fitting = [index for index, ids in enumerate(encoded) if len(ids) <= room]
    if len(fitting) < len(encoded):
        print(f"{len(encoded) - len(fitting)} of {len(encoded)} prompts are too long: left out")

    def kept(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in fitting] if values else []

    return PromptSet(kept(prompts), kept(encoded), kept(references))
