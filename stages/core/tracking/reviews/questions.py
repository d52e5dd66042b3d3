"""What reviewers are asked, and what their answers mean."""

from functools import partial
from typing import Any

from stages.core.config import ReviewQueueConfig
from stages.core.errors import UserError
from stages.core.feedback.pairs import Verdict
from stages.core.tracking.reviews.api import ask, find, pages

VERDICT = "Which answer is better?"
STRENGTH = "How much better?"
BETTER_ANSWER = "Can you write a better answer?"
VERDICTS: dict[str, Verdict] = {
    "A is better": "a",
    "B is better": "b",
    "Tie": "tie",
    "Both are bad": "both_bad",
}
STRENGTHS = {"Slightly": 1, "Clearly": 2, "Much": 3}
MAX_GUIDELINES = 1000
"""Characters, MLflow's limit."""


def ensure_questions(experiment_id: str, config: ReviewQueueConfig) -> list[str]:
    """The ids of the questions in the order of asking, made or brought up to date."""
    if len(config.guidelines) > MAX_GUIDELINES:
        raise UserError(
            f"guidelines have {len(config.guidelines)} characters, MLflow shows up to "
            f"{MAX_GUIDELINES}: shorten them"
        )
    there = pages(partial(ask, "list_label_schemas"), experiment_id=experiment_id)
    known = {schema.name: schema for schema in there}
    # The page asks the newest question first: all are made at once, the last one first.
    questions = [_better_answer(), _strength(), _verdict(config)]
    ids = {row["name"]: _ensure(experiment_id, known.get(row["name"]), row) for row in questions}
    wanted = {VERDICT: True, STRENGTH: config.ask_strength, BETTER_ANSWER: config.ask_better_answer}
    return [ids[name] for name, is_asked in wanted.items() if is_asked]


def _ensure(experiment_id: str, known: Any, question: dict[str, Any]) -> str:
    if known is None:
        return str(ask("create_label_schema", experiment_id=experiment_id, **question).schema_id)
    if known.instruction != question["instruction"]:
        ask("update_label_schema", known.schema_id, instruction=question["instruction"])
    return str(known.schema_id)


def _verdict(config: ReviewQueueConfig) -> dict[str, Any]:
    return {
        "name": VERDICT,
        "type": "feedback",
        "input": find("InputCategorical")(options=list(VERDICTS)),
        "instruction": config.guidelines,
        "enable_comment": True,
    }


def _strength() -> dict[str, Any]:
    return {
        "name": STRENGTH,
        "type": "feedback",
        "input": find("InputCategorical")(options=list(STRENGTHS)),
        "instruction": "Optional.",
    }


def _better_answer() -> dict[str, Any]:
    return {
        "name": BETTER_ANSWER,
        "type": "feedback",
        "input": find("InputText")(),
        "instruction": "Optional: it becomes an example to learn from.",
    }
