"""``rlhf feedback import``: judgments from files of other tools."""

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.review_experiment import FEEDBACK, check_tracking
from stages.core.artifacts import file_digest, json_digest
from stages.core.errors import UserError
from stages.core.feedback.imports import JudgmentFile, read_judgments, without_known
from stages.core.feedback.judgments import Judgment
from stages.core.sources import source_files

NOBODY = "imported"
"""Who judged where neither the record nor an option says so."""
MAX_SHOWN = 20
MANY = 5000
AT_ONCE = 500
"""Judgments recorded between two signs of progress."""


def add_parser(commands: Any) -> None:
    """The options of ``rlhf feedback import``."""
    help_import = "take judgments of other tools among those that retraining learns from"
    command = commands.add_parser("import", help=help_import)
    help_files = "preferences in any known format: .jsonl, .json, .csv, .parquet, …; also globs"
    command.add_argument("files", nargs="+", metavar="FILE", help=help_files)
    help_experiment = "MLflow experiment that holds the judgments (default: %(default)s)"
    command.add_argument("--experiment", default=FEEDBACK, metavar="NAME", help=help_experiment)
    help_annotator = "who judged, where a record does not say so (default: %(default)s)"
    command.add_argument("--annotator", default=NOBODY, metavar="NAME", help=help_annotator)


def import_files(options: argparse.Namespace, console: Console) -> None:
    """Record the judgments in the files; what is recorded already is left as it is.

    Raises:
        UserError: a file is not there or cannot be read, or nothing in the files is a preference.
    """
    annotator = options.annotator.strip()
    if not annotator:
        raise UserError("--annotator is empty: name who judged, or leave it out")
    paths = source_files(tuple(options.files))
    now = datetime.datetime.now(datetime.UTC)
    read = {path: read_judgments(path, annotator, now) for path in paths}
    for path, found in read.items():
        _show_refused(path, found, console)
    if not any(found.judgments for found in read.values()):
        raise UserError("nothing was imported: no record of the files prefers a reply")
    check_tracking()
    from stages.core import tracking  # brings mlflow

    tracking.set_up()
    for path, found in read.items():
        if len(found.judgments) > MANY:
            console.print(
                f"{path}: {len(found.judgments):,} judgments take long, since each is recorded on "
                "a page of its own; collect.preferences.paths reads large files as they are",
                soft_wrap=True,
                markup=False,
            )
        num_new = _record(path, found.judgments, options.experiment, console)
        _show_result(path, found, num_new, console)


# ------------------------------------------------------------------------------------ helpers


def _record(path: Path, judgments: Sequence[Judgment], experiment: str, console: Console) -> int:
    """Record what is not there yet, and return how many that were."""
    from stages.core import tracking

    if tracking.experiment_page(experiment):
        known = tracking.judgments(experiment)
        people = {one.annotator for one in known if one.annotator_kind == "human"}
        pseudonyms = {name: tracking.pseudonym(experiment, name) for name in people}
        judgments = without_known(judgments, known, pseudonyms)
    if not judgments:
        return 0
    digest = file_digest(path)
    # Not where the queues are: reviewers could look up there what they are to be asked about.
    place, params = f"{experiment}-imports", {"file": path.name, "sha256": digest}
    num_new = 0
    with (
        tracking.single_run(place, f"import {path.name}", json_digest(params)[:32], params) as run,
        console.status("recording") as status,
    ):
        for start in range(0, len(judgments), AT_ONCE):
            status.update(f"{path.name}: {start:,} of {len(judgments):,} judgments")
            some = judgments[start : start + AT_ONCE]
            num_new += tracking.record_judgments(experiment, some, run)
    return num_new


def _show_refused(path: Path, found: JudgmentFile, console: Console) -> None:
    for item in found.refused[:MAX_SHOWN]:
        console.print(f"{path}:{item.line}: {item.reason}", soft_wrap=True, markup=False)
    if len(found.refused) > MAX_SHOWN:
        more = len(found.refused) - MAX_SHOWN
        console.print(
            f"{path}: and {more:,} more; rlhf check {path} says all", soft_wrap=True, markup=False
        )


def _show_result(path: Path, found: JudgmentFile, num_new: int, console: Console) -> None:
    known = f" ({found.format})" if found.format else ""
    parts = [f"{len(found.judgments):,} judgments{known}, {num_new:,} of them new"]
    if found.refused:
        parts.append(f"{len(found.refused):,} records refused")
    if found.empty:
        parts.append(f"{found.empty:,} without a preference")
    console.print(f"{path}: {'; '.join(parts)}", soft_wrap=True, markup=False)
