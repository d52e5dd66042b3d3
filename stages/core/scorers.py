"""Scorers that a user names: a Python function, a reward model of another chain, or a sequence
classifier in transformers' format."""

import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from stages.core.artifacts import json_digest
from stages.core.chat import Prompt, prompt_text
from stages.core.errors import UserError
from stages.core.models import max_positions, tokenizer_digest
from stages.core.scorer_places import (
    check_classifier,
    find_label,
    place_label,
    reward_model_base,
    scorer_folder_kind,
)
from stages.core.scoring import Scorer, load_reward_model, read_manifest
from stages.core.sequence_classifier import load_sequence_classifier

AnyScorer = Callable[[list[Prompt], list[str]], Iterable[Any]]
"""A scorer of which nothing is known yet."""

SHOWN_CHARACTERS = 80
SHOWN_ERROR_CHARACTERS = 300
MEND = "mend it, then the same command continues the run"


def load_scorer(
    place: str,
    path: Path,
    device: torch.device,
    *,
    tokenizer: PreTrainedTokenizerBase,
    normalize: bool,
) -> Scorer:
    """What ``place`` in the configuration names.

    Args:
        place: file.py:function, the folder of a reward model, or FOLDER:LABEL; see
            ``scorer_places``.
        path: where that file or folder lies.
        tokenizer: the policy's; where a reward model reads other tokens, this is printed.
        normalize: give a reward model's scores in standard deviations from its own mean. A
            sequence classifier brings no statistics and gives raw scores.

    Raises:
        UserError: it cannot be loaded; or, when called, see ``checked``.
    """
    if not path.is_dir():
        return load_function_scorer(path, place.rpartition(":")[2])
    try:
        label = place_label(place)
        if scorer_folder_kind(path) == "reward_model":
            if label:
                raise UserError("a reward model has no labels: name its folder alone")
            return checked(place, _reward_model(place, path, device, tokenizer, normalize))
        check_classifier(path, label)
        if label:
            return checked(place, _labeller(path, device, label))
        return checked(place, _classifier(place, path, device))
    except Exception as error:
        # Of a folder that a user brings, anything may be wrong.
        raise UserError(f"scorer {place}: {_describe(error)}") from error


def load_function_scorer(path: Path, function: str) -> Scorer:
    """A Python function ``function(prompts, completions) -> list[float]`` of a source file.

    Raises:
        UserError: the file or the function does not exist or fails on import; or, when called, see
            ``checked``.
    """
    name = f"{path}:{function}"
    # Two files of one name are two modules.
    module_name = f"scorer_{path.stem}_{json_digest(str(path))[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"scorer {name}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
        call = getattr(module, function)
    except Exception as error:
        raise UserError(f"scorer {name}: {_describe(error)}") from error
    if not callable(call):
        raise UserError(f"scorer {name}: {function} is no function")
    return checked(name, call)


def checked(name: str, scorer: AnyScorer) -> Scorer:
    """``scorer``, refused as soon as it raises or returns anything but one finite number a reply.

    Raises:
        UserError: when called, in one line that names the scorer and, where it is known, the prompt
            on whose reply it failed.
    """

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        prompts, completions = list(prompts), list(completions)
        try:
            values = list(scorer(prompts, completions))
        except Exception as error:
            prompt = _failing_prompt(scorer, prompts, completions, type(error))
            where = "" if prompt is None else f", on the reply to {_excerpt(prompt)}"
            raise UserError(f"scorer {name}: {_describe(error)}{where}; {MEND}") from error
        expected = f"it must return one finite number for each; {MEND}"
        if len(values) != len(completions):
            counts = f"{len(values)} scores for {len(completions)} replies"
            raise UserError(f"scorer {name}: returned {counts}; {expected}")
        scores = [_number(value) for value in values]
        for number, value, prompt in zip(scores, values, prompts, strict=True):
            if not math.isfinite(number):
                what = f"{_one_line(repr(value), SHOWN_CHARACTERS)} for the reply to"
                raise UserError(f"scorer {name}: returned {what} {_excerpt(prompt)}; {expected}")
        return scores

    return score


# ------------------------------------------------------------------------------------ helpers


def _reward_model(
    place: str,
    folder: Path,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    normalize: bool,
) -> AnyScorer:
    """A reward model of this pipeline on a copy of its own base model."""
    reward_model = load_reward_model(folder, reward_model_base(folder), device)
    limit = max_positions(reward_model.model)
    if read_manifest(folder).tokenizer_digest != tokenizer_digest(tokenizer):
        print(
            f"scorer {place}: tokenizer or chat template differs from the policy's; "
            "texts are tokenised again with its own",
            flush=True,
        )

    def score(prompts: list[Prompt], completions: list[str]) -> list[float]:
        sequences = reward_model.encode(prompts, completions)
        _refuse_over_long(sequences, limit)
        scores = reward_model.score_tokens(sequences)
        return reward_model.normalized(scores) if normalize else scores

    return score


def _classifier(place: str, folder: Path, device: torch.device) -> AnyScorer:
    classifier = load_sequence_classifier(folder, device)
    if classifier.tokenizer.chat_template is None:
        print(
            f"scorer {place}: its tokenizer has no chat template; the text of the prompt and the "
            "reply are joined by a newline",
            flush=True,
        )

    def score(prompts: list[Prompt], completions: list[str]) -> list[float]:
        sequences = classifier.encode(prompts, completions)
        _refuse_over_long(sequences, classifier.max_length)
        return classifier.score_tokens(sequences)

    return score


def _labeller(folder: Path, device: torch.device, wanted: str) -> AnyScorer:
    """The log-odds of a label for the reply alone: such classifiers have learned from texts without
    a prompt, and what the user says is not the reply's fault."""
    classifier = load_sequence_classifier(folder, device)
    output, sign = find_label(classifier.labels, wanted)

    def score(prompts: list[Prompt], completions: list[str]) -> list[float]:
        sequences = classifier.encode_texts(completions)
        _refuse_over_long(sequences, classifier.max_length)
        return [sign * value for value in classifier.log_odds(sequences, classifier.labels[output])]

    return score


def _refuse_over_long(sequences: list[list[int]], limit: int) -> None:
    """Cut texts would get the scores of other texts, silently.

    Raises:
        UserError: with the number of over-long texts.
    """
    longest = max(map(len, sequences), default=0)
    if longest > limit:
        count = sum(len(sequence) > limit for sequence in sequences)
        raise UserError(
            f"{count} of {len(sequences)} texts exceed its {limit} tokens (the longest has "
            f"{longest}); shorten prompts and replies or take a scorer that reads more"
        )


def _failing_prompt(
    scorer: AnyScorer, prompts: list[Prompt], completions: list[str], kind: type[Exception]
) -> Prompt | None:
    """The first prompt on whose reply alone the scorer raises the same; None where only the whole
    batch makes it."""
    for prompt, completion in zip(prompts, completions, strict=True):
        try:
            list(scorer([prompt], [completion]))
        except kind:
            return prompt
        except Exception:
            continue
    return None


def _number(value: Any) -> float:
    """NaN for what is no number."""
    try:
        return float(value)
    except Exception:  # whatever the value's own class raises
        return math.nan


def _describe(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return _one_line(text, SHOWN_ERROR_CHARACTERS)


def _excerpt(prompt: Prompt) -> str:
    return repr(_one_line(prompt_text(prompt), SHOWN_CHARACTERS))


def _one_line(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
