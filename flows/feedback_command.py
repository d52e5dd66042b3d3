"""``rlhf feedback``: the commands about people's judgments."""

import argparse
from typing import Any

from rich.console import Console

from flows import feedback_ask, feedback_export, feedback_import, feedback_judge

ACTIONS = {
    "ask": feedback_ask.ask,
    "judge": feedback_judge.judge,
    "import": feedback_import.import_files,
    "export": feedback_export.export,
}


def add_parser(commands: Any) -> None:
    """The options of ``rlhf feedback`` and its commands."""
    help_feedback = "judgments of pairs: ask people, or a language model; import and export them"
    command = commands.add_parser("feedback", help=help_feedback)
    actions = command.add_subparsers(dest="action", required=True, metavar="action")
    feedback_ask.add_parser(actions)
    feedback_judge.add_parser(actions)
    feedback_import.add_parser(actions)
    feedback_export.add_parser(actions)


def feedback(options: argparse.Namespace, console: Console) -> None:
    """Do what the command says.

    Raises:
        UserError: one line with the cure.
    """
    ACTIONS[options.action](options, console)
