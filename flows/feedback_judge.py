"""``rlhf feedback judge``: a language model judges what no person has judged yet."""

import argparse
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from flows.benchmark_command import whole_number
from flows.foreground import run_flow
from flows.review_experiment import FEEDBACK
from stages.core.config import JudgePairsConfig
from stages.core.config.feedback import NO_LOGINS, names_reviewer
from stages.core.errors import UserError

DEFAULT = JudgePairsConfig().judge


def add_parser(actions: Any) -> None:
    """The options of ``rlhf feedback judge``."""
    help_judge = "let a language model judge what no person has judged yet, marked as AI's"
    epilog = "The endpoint's key comes from the environment variable RLHF_JUDGE_API_KEY."
    command = actions.add_parser("judge", help=help_judge, epilog=epilog)
    help_url = "endpoint that speaks OpenAI's protocol, such as http://localhost:8000/v1"
    command.add_argument("--url", required=True, metavar="URL", help=help_url)
    help_model = "name of the model there"
    command.add_argument("--model", required=True, metavar="NAME", help=help_model)
    help_experiment = "MLflow experiment that holds the review queues (default: %(default)s)"
    command.add_argument("--experiment", default=FEEDBACK, metavar="NAME", help=help_experiment)
    help_queue = "judge the pairs of this queue alone; may be given often"
    command.add_argument("--queue", action="append", default=[], metavar="NAME", help=help_queue)
    counts = (
        ("max-pairs", DEFAULT.num_prompts, "pairs at most, chosen at random where there are more"),
        ("parallel", DEFAULT.num_parallel, "requests at a time"),
    )
    for name, usual, text in counts:
        text += " (default: %(default)s)"
        command.add_argument(f"--{name}", type=whole_number, default=usual, metavar="N", help=text)
    for side in ("input", "output"):
        help_price = f"price of a million {side} tokens, for the cost that is shown"
        command.add_argument(
            f"--{side}-price", type=float, default=0.0, metavar="DOLLARS", help=help_price
        )


def judge(options: argparse.Namespace, console: Console) -> None:
    """Run the flow judge-pairs here.

    Raises:
        UserError: one line with the cure.
    """
    if any(map(names_reviewer, options.queue)):
        raise UserError(f"--queue: {NO_LOGINS}")
    found = run_flow(
        console,
        "flows.judge_pairs_flow",
        "judge_pairs",
        _settings(options),
        options.experiment,
        tuple(options.queue),
    )
    if found is None:
        console.print(
            f"Nothing to judge: people or {options.model} have judged all pairs.", markup=False
        )


# ------------------------------------------------------------------------------------ helpers


def _settings(options: argparse.Namespace) -> JudgePairsConfig:
    judge = {
        "url": options.url,
        "model": options.model,
        "num_prompts": options.max_pairs,
        "num_parallel": options.parallel,
        "dollars_per_million_input_tokens": options.input_price,
        "dollars_per_million_output_tokens": options.output_price,
    }
    try:
        return JudgePairsConfig.model_validate({"judge": judge})
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        raise UserError(f"{'.'.join(map(str, fault['loc']))}: {message}") from None
