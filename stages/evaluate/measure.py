"""Let the models answer, and measure replies and predictions.

Models are in memory one at a time, the SFT model last: it also rates the other models' replies,
which gives their KL to it.
"""

import gc
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from stages.core.chat import decode_completion
from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import EvaluateInputs
from stages.core.errors import UserError
from stages.core.models import check_same_tokenizer, load_tokenizer, tokenizer_digest
from stages.core.scoring import Scorer
from stages.evaluate.answers import SAMPLING_STEPS, Answers, Progress, ask, model_folder
from stages.evaluate.attempts import attempt
from stages.evaluate.data import read_history
from stages.evaluate.further import measure_further
from stages.evaluate.measurements import CHAMPION, MODELS, Measurements, Missing, Replies
from stages.evaluate.scores import score_replies
from stages.evaluate.task import HELD_OUT, REFERENCES, Task, prepare

CHAMPION_COMPARED = "comparison with the champion"
Texts = dict[str, dict[str, list[str]]]
"""Replies by set of prompts and model."""


def measure(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    compute: Compute,
    scorers: Mapping[str, Scorer],
    out_dir: Path,
    missing: list[Missing],
) -> Measurements:
    """Everything that the report needs, before averaging. What is optional and fails is left out
    and added to ``missing``.

    Raises:
        UserError: no held-out prompts, tokenizers that differ, a scorer that fails, a reward model
            that does not fit the SFT model.
    """
    sft_folder = inputs.sft.locate()
    tokenizer = load_tokenizer(sft_folder)
    for name in ("base", "policy"):
        folder = getattr(inputs, name).locate()
        digest = tokenizer_digest(load_tokenizer(folder))
        check_same_tokenizer(tokenizer, digest, f"the {name} model {folder}")
    history = read_history(inputs.history)
    task = prepare(config, inputs, tokenizer, sft_folder)
    missing += task.missing
    has_champion = _can_compare_champion(config, inputs, tokenizer, missing)

    progress = Progress(_num_steps(task, len(MODELS) + has_champion))
    answers = _ask_all(config, inputs, compute, task, has_champion, progress, missing)
    models = [name for name in (*MODELS, CHAMPION) if name in answers]
    texts: Texts = {
        prompts: {
            name: [decode_completion(tokenizer, ids) for ids in answers[name].replies[prompts]]
            for name in models
        }
        for prompts in task.prompt_sets
    }
    prompts = task.prompt_sets[HELD_OUT].prompts
    scored = score_replies(inputs, compute, scorers, prompts, texts[HELD_OUT], progress, missing)
    eos_token_id = tokenizer.eos_token_id
    replies = {
        name: Replies(
            texts=texts[HELD_OUT][name],
            lengths=[
                len(ids) - (ids[-1] == eos_token_id) for ids in answers[name].replies[HELD_OUT]
            ],
            ended=[ids[-1] == eos_token_id for ids in answers[name].replies[HELD_OUT]],
            kl=_kl(answers[name].logprobs[name], answers["sft"].logprobs[name]),
            scores=scored.scores[name],
        )
        for name in models
    }
    lengths = {name: replies[name].lengths for name in models}
    further = measure_further(
        config, inputs, compute, task, texts, lengths, progress, out_dir, missing
    )
    with_reference = task.prompt_sets.get(REFERENCES)
    return Measurements(
        prompts=prompts,
        replies=replies,
        score_mean=scored.mean,
        score_std=scored.std,
        scorers=scored.names,
        bits_per_byte=_present({name: answers[name].bits_per_byte for name in models}),
        num_bytes=task.num_bytes,
        sft_loss=_present({name: answers[name].sft_loss for name in models}),
        num_demonstrations=len(task.demonstrations.targets),
        references=with_reference.references if with_reference else [],
        replies_with_reference=texts.get(REFERENCES, {}),
        measures=further.measures,
        totals=further.totals,
        judged=further.judged,
        judge_dollars=further.judge_dollars,
        history=history,
        missing=tuple(missing),
    )


# ------------------------------------------------------------------------------------ helpers


def _can_compare_champion(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    tokenizer: PreTrainedTokenizerBase,
    missing: list[Missing],
) -> bool:
    if inputs.champion is None or not config.compare_champion:
        reason = (
            "there is no champion yet"
            if config.compare_champion
            else "evaluate.compare_champion is off"
        )
        missing.append(Missing(CHAMPION_COMPARED, reason))
        return False
    if inputs.champion.digest == inputs.policy.digest:
        missing.append(Missing(CHAMPION_COMPARED, "the champion is this very policy"))
        return False
    champion = inputs.champion

    def check() -> bool:
        digest = tokenizer_digest(load_tokenizer(model_folder(champion)))
        if digest != tokenizer_digest(tokenizer):
            raise UserError(
                "the champion has another tokenizer or chat template than these models, so its "
                "replies follow other prompts and its KL would mean nothing"
            )
        return True

    return attempt(CHAMPION_COMPARED, check, missing) or False


def _num_steps(task: Task, num_models: int) -> int:
    """Sampled and rated replies and predicted texts; each model rates its own replies, the SFT
    model also all others', and the reward model scores each."""
    num_predicted = len(task.documents.targets) + len(task.demonstrations.targets)
    num_held_out = len(task.prompt_sets[HELD_OUT].ids)
    return (
        num_models * (num_predicted + SAMPLING_STEPS * task.num_prompts)
        + (3 * num_models - 1) * num_held_out
    )


def _ask_all(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    compute: Compute,
    task: Task,
    has_champion: bool,
    progress: Progress,
    missing: list[Missing],
) -> dict[str, Answers]:
    answers: dict[str, Answers] = {}

    def answer(name: str, others: Mapping[str, list[list[int]]]) -> Answers:
        artifact = getattr(inputs, name)
        return ask(name, artifact, others, task, config, compute, progress)

    if has_champion:
        found = attempt(CHAMPION_COMPARED, lambda: answer(CHAMPION, {}), missing)
        if found is not None:
            answers[CHAMPION] = found
        _free_memory()
    for name in ("base", "policy", "sft"):
        is_last = name == "sft"
        others = {other: answers[other].replies[HELD_OUT] for other in answers if is_last}
        answers[name] = answer(name, others)
        _free_memory()
    return answers


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kl(model: list[torch.Tensor], sft: list[torch.Tensor]) -> list[float]:
    """Sum over each reply's tokens of log p_model - log p_sft, nats: over replies of the model an
    unbiased estimate of its KL divergence from the SFT model."""
    return [
        (own.double() - other.double()).sum().item() for own, other in zip(model, sft, strict=True)
    ]


def _present(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
