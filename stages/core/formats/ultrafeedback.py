"""UltraFeedback: four replies a prompt with scores; and pairs made of it.

Original (openbmb/UltraFeedback): ``instruction`` and ``completions`` with ``response`` and
``overall_score``. Binarised (HuggingFaceH4, argilla): ``prompt``, ``chosen`` and ``rejected`` as
messages with a score each.
"""

from stages.core.formats.format import Fields, Format, Rows, as_number, of_pairs, ranked_pairs

SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)


def _scored(fields: Fields) -> Rows:
    if not isinstance(fields.get("completions"), list):
        raise ValueError("column completions missing")
    replies = []
    for completion in fields["completions"]:
        reply = completion.get("response") if isinstance(completion, dict) else None
        if not isinstance(reply, str):
            raise ValueError("completions has an entry without response")
        score = as_number(completion.get("overall_score"))
        if score is not None:  # a reply that nobody judged
            replies.append((-score, reply))
    return ranked_pairs(fields.get("instruction"), replies)


def _is_scored(fields: Fields) -> bool:
    completions = fields.get("completions")
    return (
        "instruction" in fields
        and isinstance(completions, list)
        and all(isinstance(item, dict) and "overall_score" in item for item in completions)
    )


def _binarised(fields: Fields) -> Rows:
    for better, worse in SCORES:
        high, low = as_number(fields.get(better)), as_number(fields.get(worse))
        if high is not None and low is not None and high < low:
            raise ValueError("the rejected reply has the higher score")
    names = ("prompt", "chosen", "rejected")
    return [{name: fields[name] for name in names if fields.get(name) is not None}]


def _is_binarised(fields: Fields) -> bool:
    has_scores = any(better in fields and worse in fields for better, worse in SCORES)
    return has_scores and "chosen" in fields and "rejected" in fields


FORMATS = (
    Format(
        "UltraFeedback",
        "instruction, completions with overall_score",
        _is_scored,
        {**of_pairs(_scored), "prompts": lambda fields: [{"prompt": fields.get("instruction")}]},
    ),
    Format(
        "binarised UltraFeedback",
        "chosen, rejected with scores",
        _is_binarised,
        of_pairs(_binarised),
    ),
)
