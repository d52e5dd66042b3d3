"""``rlhf check``: what is wrong with data files, before a run takes them."""

import argparse
import json
from typing import Any

from rich.console import Console
from rich.markup import escape

from flows.benchmark_command import whole_number

CONTEXT = 2048
KINDS = ("documents", "sft", "preferences", "prompts", "labelled")


def add_parser(commands: Any) -> None:
    """The options of ``rlhf check``."""
    command = commands.add_parser(
        "check",
        help="say what is wrong with data files, and how to mend it",
        epilog="Exit code: 0 fine, 1 findings, 2 a file that cannot be used.",
    )
    help_files = (
        "files, globs or folders: .jsonl, .json, .parquet, .csv, .tsv, .txt, .md, .gz, .zst"
    )
    command.add_argument("files", nargs="+", metavar="FILE", help=help_files)
    help_kind = f"what they hold: {', '.join(KINDS)} (default: by each file's columns)"
    command.add_argument("--kind", choices=KINDS, default="", metavar="KIND", help=help_kind)
    help_tokenizer = "with a tokenizer.json: lengths in its tokens, its special tokens inside text"
    command.add_argument("--tokenizer", default="", metavar="FOLDER", help=help_tokenizer)
    help_context = (
        "tokens that the model sees at once (default: %(default)s); 0: any length is fine"
    )
    command.add_argument(
        "--context", type=whole_number, default=CONTEXT, metavar="N", help=help_context
    )
    help_evaluation = "evaluation data: no 13 words in a row of it may be in the files"
    command.add_argument(
        "--evaluation", nargs="+", default=[], metavar="FILE", help=help_evaluation
    )
    help_held_out = "held-out data: no prompt or text of it may be in the files"
    command.add_argument("--held-out", nargs="+", default=[], metavar="FILE", help=help_held_out)
    command.add_argument("--json", action="store_true", help="print one JSON object, no table")


def check(options: argparse.Namespace, console: Console) -> int:
    """Print what was found and return the exit code.

    Raises:
        UserError: a file or the tokenizer is not there, or cannot be read at all.
    """
    from stages.core import data_check  # the command line starts without polars

    with Console(stderr=True, highlight=False).status("reading") as status:
        report = data_check.check_files(
            options.files,
            options.kind,
            tokenizer=options.tokenizer,
            context=options.context,
            evaluation=options.evaluation,
            held_out=options.held_out,
            progress=lambda name, count: status.update(f"{escape(name)}: {count:,} records"),
        )
    if options.json:
        console.file.write(json.dumps(report.as_json(), indent=1) + "\n")
    else:
        console.print(data_check.table(report))
    return report.exit_code
