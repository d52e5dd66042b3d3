"""``rlhf forget``: a reviewer leaves, and what they said goes with them."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from flows.review_experiment import FEEDBACK, check_tracking
from stages.core.artifacts import data_root
from stages.core.errors import UserError

NOT_LOOKED_AT = (
    "Not looked at: files that were exported, backups, other machines' data folders, the person's "
    "account on the MLflow server, and the parameters of sample-pairs' runs in Prefect, which name "
    "who was asked."
)


def add_parser(commands: Any) -> None:
    """The options of ``rlhf forget``."""
    help_forget = "list what a reviewer judged and what learned from it, or remove the judgments"
    command = commands.add_parser("forget", help=help_forget)
    command.add_argument("reviewer", metavar="REVIEWER", help="login of the person")
    help_experiment = "MLflow experiment that holds the review queues (default: %(default)s)"
    command.add_argument("--experiment", default=FEEDBACK, metavar="NAME", help=help_experiment)
    command.add_argument("--apply", action="store_true", help="remove it")


def forget(options: argparse.Namespace, console: Console) -> None:
    """Show what the reviewer left; remove it with ``--apply``.

    Raises:
        UserError: nobody of this name left anything, a run is using the data, or something cannot
            be removed.
    """
    check_tracking()
    from flows import withdrawal  # brings mlflow
    from stages.core import tracking

    tracking.set_up()
    with tracking.impatiently():
        if not tracking.experiment_page(options.experiment):
            raise UserError(
                f"there is no MLflow experiment called {options.experiment!r}; name the one that "
                "holds the review queues with --experiment"
            )
        found = withdrawal.find(options.experiment, options.reviewer)
    if found.is_empty and not found.runs:
        raise UserError(_unknown(options.reviewer, options.experiment))
    _show(found, console)
    if found.is_empty:
        _line(console, "Nothing is left to remove.")
    elif not options.apply:
        _line(console, "Nothing was removed; --apply does it.")
    else:
        with tracking.impatiently():
            removed, left = withdrawal.remove_all(found)
        _line(
            console,
            f"Removed: {removed.judgments:,} judgments, {len(found.snapshots):,} snapshots, "
            f"{len(found.results) + len(found.copies) - len(left):,} results with copies, "
            f"{decimal(found.size_bytes)}; {removed.reopened:,} pairs wait for somebody else.",
        )
        for waste in left:
            _line(console, f"Left, since a run has taken it up meanwhile: {waste.path}; run again.")
    if found.versions or found.models:
        _show_cure(found.versions, console)
    _line(console, NOT_LOOKED_AT)


# ------------------------------------------------------------------------------------ helpers


def _show(found: Any, console: Console) -> None:
    _line(console, f"{found.reviewer}, {found.pseudonym} in files, in {found.experiment}:")
    _line(console, f"  {found.num_judgments:,} judgments on the review pages")
    for queue in found.queues:
        _line(console, f"  queue {queue}")
    for waste in (*found.snapshots, *found.results):
        path = waste.path.relative_to(data_root()).as_posix()
        _line(console, f"  {path}: {waste.why}, {decimal(waste.size_bytes)}")
    for run_id in found.copies:
        _line(console, f"  a copy of such data among the artifacts of MLflow run {run_id}")
    if found.runs or found.models:
        console.print("What learned from them, and stays:")
    for stage, key in found.models:
        _line(console, f"  runs/{stage}/{key}")
    for run in found.runs:
        _line(console, f"  run {run.name} of {run.started:%Y-%m-%d %H:%M} UTC, {run.state}")
    for version in found.versions:
        aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
        _line(console, f"  rlhf-policy version {version.number}{aliases}")


def _show_cure(versions: Sequence[Any], console: Console) -> None:
    """What to do about models that learned from judgments which are gone."""
    console.print("A model cannot unlearn. What you can do:")
    _line(
        console, "  retrain: the next run (rlhf run, or the deployment retrain) reads no judgment"
    )
    _line(console, "    of theirs; its policy can take the champion's place")
    if any("champion" in version.aliases for version in versions):
        numbers = {version.number for version in versions if "previous" in version.aliases}
        also = ", which learned from them, too" if numbers else ""
        _line(console, f"  go back: rlhf rollback makes the previous champion champion again{also}")
    _line(console, "  delete: the version on MLflow's page Models and the run on its page, then")
    _line(console, "    rlhf gc --apply removes the files")


def _unknown(reviewer: str, experiment: str) -> str:
    from stages.core import tracking

    known = set(tracking.annotators(experiment))
    known |= {user for state in tracking.queue_states(experiment) for user in state.users}
    near = difflib.get_close_matches(reviewer, sorted(known), n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]!r}?" if near else "; look for the login on the review page"
    return f"there is nothing by {reviewer!r} in {experiment!r} (any more){meant}"


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)
