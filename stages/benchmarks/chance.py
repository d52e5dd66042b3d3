"""What a task's figures are worth: what guessing and always giving one answer would reach."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lm_eval.api.task import Task

from stages.core.errors import UserError


class Baselines(NamedTuple):
    """By metric, as far as they are known."""

    chance: Mapping[str, float]
    """Of guessing, all options being equally likely."""
    majority: Mapping[str, float]
    """Of always giving the commonest answer, where all questions have the same options."""
    num_characters: int
    """Of all questions and options, what all questions begin with counted once."""
    num_requests: int
    """Options of all questions."""


class _Question(NamedTuple):
    text: str
    choices: list[str]
    gold: int | None
    """The right option; None where the task does not say it so."""


def baselines(task: Task, num_questions: int) -> Baselines:
    """Look at the first ``num_questions`` questions.

    Raises:
        UserError: an answer is not among its options: it would count as wrong, silently.
    """
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        texts = [task.doc_to_target(doc) for _, doc in task.doc_iterator(limit=num_questions)]
        return Baselines({}, {}, sum(map(len, texts)), len(texts))
    questions = [
        _question(task, number, doc) for number, doc in task.doc_iterator(limit=num_questions)
    ]
    texts = [question.text for question in questions]
    shared = _shared_length(texts) * (len(texts) - 1)
    options = [choice for question in questions for choice in question.choices]
    num_characters = sum(map(len, texts)) - shared + sum(map(len, options))
    chance, majority = _levels(task, questions)
    return Baselines(chance, majority, num_characters, len(options))


def _question(task: Task, number: int, doc: dict) -> _Question:
    text, choices = str(task.doc_to_text(doc)), list(task.doc_to_choice(doc))
    if task.config.process_results is not None and task.config.task != "truthfulqa_mc2":
        return _Question(text, choices, None)
    target = task.doc_to_target(doc)
    if isinstance(target, str) and target in choices:
        target = choices.index(target)
    if not isinstance(target, int) or not 0 <= target < len(choices):
        raise UserError(
            f"record {number + 1}: its answer {target!r} is none of its {len(choices)} options"
        )
    return _Question(text, choices, int(target))


def _shared_length(texts: Sequence[str]) -> int:
    """Characters that all texts begin with."""
    first, last = min(texts), max(texts)
    differing = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(differing, min(len(first), len(last)))


def _levels(
    task: Task, questions: Sequence[_Question]
) -> tuple[dict[str, float], dict[str, float]]:
    name, count = task.config.task, len(questions)
    if name == "truthfulqa_mc2":  # the share of the probability on right answers
        labels = [doc["mc2_targets"]["labels"] for _, doc in task.doc_iterator(limit=count)]
        return {"acc": sum(sum(item) / len(item) for item in labels) / count}, {}
    if name.startswith("crows_pairs"):
        return {"pct_stereotype": 0.5}, {}
    gold = Counter(question.gold for question in questions)
    if None in gold:
        return {}, {}
    guess = sum(1 / len(question.choices) for question in questions) / count
    chance = {"acc": guess, "acc_norm": guess, "mcc": 0.0}
    options = {tuple(question.choices) for question in questions}
    if len(options) > 1:
        return chance, {}
    (choices,) = options
    shares = [gold[index] / count for index in range(len(choices))]
    # The F1 of a class that is guessed at the rate ``guess``, whatever the question.
    f1 = [2 * share * guess / (share + guess) for share in shares]
    chance["f1"] = f1[1] if len(choices) == 2 else sum(f1) / len(f1)
    return chance, {"acc": max(shares)}
