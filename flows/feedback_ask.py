"""``rlhf feedback ask``: choose pairs of replies and open a review queue for them."""

import argparse
from typing import Any, get_args

from rich.console import Console

from flows import foreground
from flows.profiles import override, setting
from stages.core.config import Compute, Frozen, ModelName, ReviewQueueConfig, SamplePairsConfig

MODELS: tuple[str, ...] = get_args(ModelName)


class AskSettings(Frozen):
    """What ``--set`` changes."""

    sample_pairs: SamplePairsConfig = SamplePairsConfig()
    queue: ReviewQueueConfig = ReviewQueueConfig()
    compute: Compute = Compute()


def add_parser(actions: Any) -> None:
    """The options of ``rlhf feedback ask``."""
    help_ask = "choose the pairs of replies worth a person's time, and open a review queue"
    command = actions.add_parser("ask", help=help_ask)
    help_set = "change one setting, such as sample_pairs.num_pairs=50 or queue.overlap_share=0"
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_set)
    help_reviewer = "login of who shall answer; given often, each gets a queue of their own"
    command.add_argument(
        "--reviewer", action="append", default=[], metavar="NAME", help=help_reviewer
    )
    help_queue = "name of the queue (default: of the day and the pairs)"
    command.add_argument("--queue", default="", metavar="NAME", help=help_queue)
    help_earlier = "take models and prompts from this MLflow run: name, id, or model@alias"
    command.add_argument("--earlier-run", default="", metavar="RUN", help=help_earlier)
    help_model = f"who replies, of {', '.join(MODELS)} (default: policy and sft)"
    command.add_argument(
        "--model", action="append", default=[], choices=MODELS, metavar="NAME", help=help_model
    )
    help_prompts = "file with prompts; may be given often (default: the run's training prompts)"
    command.add_argument(
        "--prompts", action="append", default=[], metavar="FILE", help=help_prompts
    )
    help_traffic = "take prompts from the traces that an application logs to this experiment"
    command.add_argument("--traffic", default="", metavar="EXPERIMENT", help=help_traffic)
    help_gold = "file of preferences beyond doubt, some of which are mixed in; may be given often"
    command.add_argument("--gold", action="append", default=[], metavar="FILE", help=help_gold)


def ask(options: argparse.Namespace, console: Console) -> None:
    """Run the flow sample-pairs here, and show where the queue is.

    Raises:
        UserError: one line with the cure.
    """
    changes: dict[str, Any] = dict(map(setting, options.set))
    if options.reviewer:
        changes["queue.reviewers"] = options.reviewer
    if options.queue:
        changes["queue.name"] = options.queue
    settings = override(AskSettings(), changes)
    foreground.run_flow(
        console,
        "flows.sample_pairs_flow",
        "sample_pairs",
        settings.sample_pairs,
        settings.queue,
        settings.compute,
        options.earlier_run,
        tuple(options.model) or ("policy", "sft"),
        tuple(options.prompts),
        options.traffic,
        tuple(options.gold),
    )
