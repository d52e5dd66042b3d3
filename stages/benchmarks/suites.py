"""The tasks of each suite: where the harness defines them, and where a local folder has their data.

A local folder holds each data set in the columns of the Hub's, as ``<folder>/<split>.jsonl``
(``.json``; either also with ``.gz``).
"""

from typing import NamedTuple


class TaskSource(NamedTuple):
    """One task of the harness."""

    name: str
    definition: str
    """The harness's own file, below its folder of tasks."""
    folder: str
    """Where its data lies below a local folder."""
    split: str
    """Whose questions are asked."""
    columns: tuple[str, ...]
    """What the definition reads of a record."""
    subject: str = ""
    """Only the records of this subject."""
    examples: str = "train"
    """Split that the worked examples come from; where a local folder lacks it, the asked one."""
    takes_examples: bool = True
    """Whether worked examples make sense before its questions."""
    category: str = ""
    """The part of the suite that the task is averaged in, too."""


def _glue(name: str, *columns: str, split: str = "validation", file: str = "default") -> TaskSource:
    folder = name.removesuffix("_mismatch")
    return TaskSource(
        name, f"glue/{folder}/{file}.yaml", f"glue/{folder}", split, (*columns, "label")
    )


def _super_glue(name: str, *columns: str) -> TaskSource:
    folder = f"super_glue/{name}"
    return TaskSource(name, f"{folder}/default.yaml", folder, "validation", columns)


GLUE = (
    _glue("cola", "sentence"),
    _glue("sst2", "sentence"),
    _glue("mrpc", "sentence1", "sentence2"),
    _glue("rte", "sentence1", "sentence2"),
    _glue("qqp", "question1", "question2"),
    _glue("mnli", "premise", "hypothesis", split="validation_matched"),
    _glue("mnli_mismatch", "premise", "hypothesis", split="validation_mismatched", file="mismatch"),
    _glue("qnli", "question", "sentence"),
    _glue("wnli", "sentence1", "sentence2"),
)

SUPER_GLUE = (
    _super_glue("boolq", "passage", "question", "label"),
    _super_glue("cb", "premise", "hypothesis", "label"),
    _super_glue("copa", "premise", "choice1", "choice2", "question", "label"),
    _super_glue("wic", "word", "sentence1", "sentence2", "start1", "end1", "label"),
    _super_glue("wsc", "text", "span1_text", "span2_text", "span2_index", "label"),
    _super_glue("multirc", "paragraph", "question", "answer", "label"),
    _super_glue("record", "passage", "query", "entities", "answers"),
)

ARC_COLUMNS = ("question", "choices", "answerKey")
TRUTHFULQA = "truthful_qa_mc"

OTHERS = {
    "hellaswag": (
        TaskSource(
            "hellaswag",
            "hellaswag/hellaswag.yaml",
            "hellaswag",
            "validation",
            ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
        ),
    ),
    "truthfulqa": tuple(
        TaskSource(
            f"truthfulqa_{kind}",
            f"truthfulqa/truthfulqa_{kind}.yaml",
            TRUTHFULQA,
            "validation",
            ("question", f"{kind}_targets"),
            takes_examples=False,  # they stand in its prompt
        )
        for kind in ("mc1", "mc2")
    ),
    "arc": tuple(
        TaskSource(name, f"arc/{name}.yaml", name, "test", ARC_COLUMNS)
        for name in ("arc_easy", "arc_challenge")
    ),
    "crows_pairs": (
        TaskSource(
            "crows_pairs_english",
            "crows_pairs/crows_pairs_english.yaml",
            "crows_pairs",
            "test",
            ("sent_more", "sent_less"),
            takes_examples=False,  # it compares two sentences as they are
        ),
    ),
}

MMLU_DEFINITIONS = "mmlu/default"
MMLU_COLUMNS = ("question", "choices", "answer", "subject")


def mmlu_subject(subject: str, tag: str) -> TaskSource:
    """The task of one of MMLU's subjects, all of which share a local file.

    Args:
        tag: the harness's name of the subject's category, such as mmlu_stem_tasks.
    """
    name = f"mmlu_{subject}"
    return TaskSource(
        name,
        f"{MMLU_DEFINITIONS}/{name}.yaml",
        "mmlu",
        "test",
        MMLU_COLUMNS,
        subject=subject,
        examples="dev",
        category=tag.removesuffix("_tasks"),
    )
