"""What other data sets call our columns, for the suggestion in an error message."""

import json
from collections.abc import Collection, Mapping

from stages.core.schemas import DataKind, columns

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        "content", "body", "document", "story", "article", "raw_content",
        "sentence", "comment", "comment_text", "tweet", "review",
    ),
    "label": ("class", "category", "target", "labels", "toxic", "toxicity", "sentiment"),
    "prompt": ("question", "instruction", "input", "query", "inputs", "problem"),
    "completion": ("response", "answer", "output", "target", "targets", "solution", "reply"),
    "chosen": ("preferred", "better", "accepted", "winner", "response_chosen", "pos"),
    "rejected": ("dispreferred", "worse", "refused", "loser", "response_rejected", "neg"),
}  # fmt: skip
"""Our column name → what others call it, in lower case."""


def suggest_columns(
    kind: DataKind, missing: Collection[str], given: Collection[str], mapping: Mapping[str, str]
) -> dict[str, str]:
    """``mapping`` (our column → the file's) with a guess for each of the ``missing`` columns.

    Of the ``given`` columns that mean nothing yet, the one with a usual name is taken; else the
    only one there is; else "…", for the reader to fill in.
    """
    known = {*columns(kind), *mapping.values()}
    unused = [name for name in given if name not in known]
    suggested = dict(mapping)
    for name in missing:
        names = (name, *USUAL_NAMES.get(name, ()))
        usual = [other for other in unused if other.lower() in names]
        is_only_choice = len(missing) == len(unused) == 1
        guess = usual[0] if usual else unused[0] if is_only_choice else "…"
        suggested[name] = guess
        unused = [other for other in unused if other != guess]
    return suggested


def mapping_hint(
    kind: DataKind, missing: Collection[str], given: Collection[str], mapping: Mapping[str, str]
) -> str:
    """Advice for a file with the columns ``given``: what to set as ``collect.<kind>.columns``."""
    shown = json.dumps(suggest_columns(kind, missing, given, mapping), ensure_ascii=False)
    return (
        f"the file has the columns {', '.join(map(str, given))}; "
        f"map them, for instance collect.{kind}.columns={shown}"
    )
