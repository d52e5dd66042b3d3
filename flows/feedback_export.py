"""``rlhf feedback export``: people's judgments as a file of preferences."""

import argparse
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from flows.review_experiment import FEEDBACK, check_tracking
from stages.core.config import FeedbackSource
from stages.core.errors import UserError
from stages.core.feedback.exports import ExportFormat, export_rows, write_export

FORMATS: tuple[str, ...] = get_args(ExportFormat)
ANNOTATORS = ("human", "ai", "all")
SUFFIX = ".jsonl"


def add_parser(commands: Any) -> None:
    """The options of ``rlhf feedback export``."""
    command = commands.add_parser("export", help="write what was judged as a file of preferences")
    command.add_argument("file", type=Path, metavar="FILE", help=f"ends with {SUFFIX}")
    help_format = (
        "jsonl (prompt, chosen, rejected and who, when, how much), hh (HH-RLHF's dialogues) or "
        "argilla (default: %(default)s)"
    )
    command.add_argument("--format", choices=FORMATS, default="jsonl", help=help_format)
    help_experiment = "MLflow experiment that holds the queues (default: %(default)s)"
    command.add_argument("--experiment", default=FEEDBACK, metavar="NAME", help=help_experiment)
    help_queue = "only this queue; may be given often (default: all)"
    command.add_argument("--queue", action="append", default=[], metavar="NAME", help=help_queue)
    help_annotators = "whose judgments: human, ai or all (default: %(default)s)"
    command.add_argument("--annotators", choices=ANNOTATORS, default="human", help=help_annotators)
    help_held_out = (
        "the pairs of the random share, which are for evaluation, in place of the others"
    )
    command.add_argument("--held-out", action="store_true", help=help_held_out)
    command.add_argument("--force", action="store_true", help="replace a file of this name")


def export(options: argparse.Namespace, console: Console) -> None:
    """Write the preferences as collect would take them, under pseudonyms.

    Raises:
        UserError: there are none, or the file cannot be written.
    """
    path: Path = options.file
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: the file's name must end with {SUFFIX}, by which it is read")
    if path.exists() and not options.force:
        raise UserError(f"{path}: exists; --force replaces it, or choose another name")
    check_tracking()
    from stages.core import tracking  # brings mlflow
    from stages.core.feedback.preferences import feedback_data

    source = FeedbackSource(experiment=options.experiment, annotators=options.annotators)
    with tracking.impatiently():
        tracking.set_up()
        judgments = tracking.judgments(source.experiment, tuple(options.queue))
        people = {one.annotator for one in judgments if one.annotator_kind == "human"}
        pseudonyms = {name: tracking.pseudonym(source.experiment, name) for name in people}
        published = tracking.published_pairs(source.experiment)
    data = feedback_data(judgments, source, pseudonyms, published)
    wanted, others = data.preferences, data.preferences_held_out
    if options.held_out:
        wanted, others = others, wanted
    records, left_out = export_rows(wanted, options.format)
    if not records:
        raise UserError(_why_none(options, len(judgments), len(wanted), len(others)))
    write_export(path, records, force=options.force)
    console.print(
        f"{path}: {len(records):,} preferences of {len(data.judgments):,} judgments",
        soft_wrap=True,
        markup=False,
    )
    if others and not options.held_out:
        console.print(
            f"{len(others):,} pairs of the random share are left out, since nobody should train on "
            "them: --held-out writes those"
        )
    for reason, count in left_out.items():
        console.print(f"{count:,} left out: {reason}", soft_wrap=True)


# ------------------------------------------------------------------------------------ helpers


def _why_none(options: argparse.Namespace, judged: int, wanted: int, others: int) -> str:
    if wanted:
        return f"none of the {wanted:,} preferences fits into {options.format}: choose jsonl"
    if others:
        cure = "leave --held-out out" if options.held_out else "--held-out writes those"
        which = "for training" if options.held_out else "of the random share"
        return f"all {others:,} preferences are {which}: {cure}"
    return (
        f"none of the {judged:,} judgments in {options.experiment!r} prefers a reply as "
        f"--annotators {options.annotators} asks: nothing was written"
    )
