"""Several replies to one prompt, and beside them which one was judged better.

As annotation tools and arenas export it: ``response_a``, ``response_b`` and ``winner`` (Chatbot
Arena), or two scores; ``response_0``, ``response_1`` and ``better_response_id`` (PKU-SafeRLHF);
``responses`` and ``scores`` as two lists.
"""

from stages.core.formats.format import Fields, Format, Rows, as_number, of_pairs, ranked_pairs

PROMPTS = ("prompt", "question", "instruction", "query")
NAMES = ("response", "answer", "output", "completion", "reply", "model_response")
SIDES = (("a", "b"), ("0", "1"), ("1", "2"))
VERDICTS = ("winner", "preference", "preferred", "choice", "better_response_id", "better")
TIES = ("tie", "both", "neither", "equal", "same", "none")
LISTS = (("responses", "scores"), ("completions", "scores"), ("answers", "scores"))


def _prompt(fields: Fields) -> object:
    return next((fields[name] for name in PROMPTS if fields.get(name) is not None), None)


def _sides(fields: Fields) -> tuple[str, tuple[str, str]] | None:
    """How the two replies' columns are called: their name, and what tells them apart."""
    for name in NAMES:
        for one, other in SIDES:
            if f"{name}_{one}" in fields and f"{name}_{other}" in fields:
                return name, (one, other)
    return None


def _scores(fields: Fields, sides: tuple[str, str]) -> list[object]:
    return [
        next((fields[name] for name in (f"score_{side}", f"rating_{side}") if name in fields), None)
        for side in sides
    ]


def _verdict(fields: Fields) -> str:
    """Who won, in lower case; "": nobody says."""
    found = next((fields[name] for name in VERDICTS if fields.get(name) is not None), "")
    return str(found).strip().lower()


def _is_compared(fields: Fields) -> bool:
    found = _sides(fields)
    if found is None or _prompt(fields) is None:
        return False
    return bool(_verdict(fields)) or any(score is not None for score in _scores(fields, found[1]))


def _compared(fields: Fields) -> Rows:
    found = _sides(fields)
    if found is None:
        raise ValueError("there are no two replies")
    name, sides = found
    replies = [fields[f"{name}_{side}"] for side in sides]
    verdict = _verdict(fields)
    if verdict.split(" ")[0] in TIES:
        return []
    if verdict:
        won = [verdict in (side, f"{name}_{side}", f"model_{side}") for side in sides]
        if not any(won):
            raise ValueError("the verdict names none of the two replies")
        ranks = [float(not is_winner) for is_winner in won]
    else:
        scores = [as_number(score) for score in _scores(fields, sides)]
        ranks = [-score for score in scores if score is not None]
        if len(ranks) < len(replies):
            raise ValueError("a reply has no score")
    return ranked_pairs(_prompt(fields), list(zip(ranks, replies, strict=True)))


def _lists(fields: Fields) -> tuple[list[object], list[object]] | None:
    for replies, scores in LISTS:
        if isinstance(fields.get(replies), list) and isinstance(fields.get(scores), list):
            return fields[replies], fields[scores]
    return None


def _scored(fields: Fields) -> Rows:
    found = _lists(fields)
    if found is None:
        raise ValueError("there are no lists of replies and scores")
    replies, scores = found
    if len(replies) != len(scores):
        raise ValueError("there are not as many scores as replies")
    ranks = [as_number(score) for score in scores]
    judged = [
        (-rank, reply) for rank, reply in zip(ranks, replies, strict=True) if rank is not None
    ]
    return ranked_pairs(_prompt(fields), judged)


FORMATS = (
    Format(
        "two replies compared",
        "prompt, response_a, response_b, winner or scores",
        _is_compared,
        of_pairs(_compared),
    ),
    Format(
        "replies with scores",
        "prompt, responses, scores",
        lambda fields: _prompt(fields) is not None and _lists(fields) is not None,
        of_pairs(_scored),
    ),
)
