"""A language model judges pairs of replies, each in both orders, in place of a person or beside
one. Its method, and what it cannot do, stand in ``stages.core.judge.pairwise``."""

from collections.abc import Iterable
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import data_root, make_artifact
from stages.core.config import Compute, JudgePairsConfig
from stages.core.contracts import JudgePairsInputs, JudgePairsOutputs
from stages.core.errors import UserError
from stages.core.feedback.pairs import CandidatePair, read_pairs
from stages.core.judge import Judgements, judge
from stages.core.launch import WARNING_PREFIX
from stages.core.schemas import write_jsonl
from stages.judge_pairs.figures import figures
from stages.judge_pairs.verdicts import JudgedPair, judged_pairs

NUM_SHOWN = 20
"""Pairs in the table that the MLflow run shows."""


def run(
    config: JudgePairsConfig, inputs: JudgePairsInputs, compute: Compute, out_dir: Path
) -> tuple[JudgePairsOutputs, dict[str, float]]:
    """Ask about the pairs and write ``judgments.jsonl``; a pair without a verdict in both orders
    has no line there.

    Raises:
        UserError: no pairs, a file that holds none, settings with which nothing can be asked, or an
            endpoint that was given up before it judged a single pair.
    """
    pairs = _distinct(pair for artifact in inputs.pairs for pair in read_pairs(artifact.locate()))
    if not pairs:
        raise UserError("no pairs to judge; sample-pairs makes some")
    found = judge(
        config.judge,
        [pair.prompt for pair in pairs],
        [pair.reply_a for pair in pairs],
        [pair.reply_b for pair in pairs],
        seed=config.seed,
        file=_answers_file(),
        on_answer=tracking.report_progress,
    )
    judged = judged_pairs(pairs, found)
    if not judged and (found.stopped or not any(map(any, found.answers))):
        raise UserError(_no_verdicts(found))
    if found.num_failed:
        print(f"{WARNING_PREFIX}{_no_verdicts(found)}", flush=True)
    tracking.log_table([_shown(item) for item in judged[:NUM_SHOWN]], "judgments")
    file = out_dir / "judgments.jsonl"
    write_jsonl(file, (item.row() for item in judged))
    outputs = JudgePairsOutputs(judgments=make_artifact("judgments", file))
    return outputs, figures(judged, found)


# ------------------------------------------------------------------------------------ helpers


def _distinct(pairs: Iterable[CandidatePair]) -> list[CandidatePair]:
    """Each pair once, as it comes first, however many reviewers are asked about it."""
    distinct: dict[str, CandidatePair] = {}
    for pair in pairs:
        distinct.setdefault(pair.pair_id, pair)
    return list(distinct.values())


def _answers_file() -> Path:
    """Where the judge's answers are kept. Not in the stage's own folder, which follows from the
    pairs: while people answer some of them, the rest must not be paid for anew."""
    return data_root() / "cache" / "judge" / "answers.jsonl"


def _no_verdicts(found: Judgements) -> str:
    """On how many pairs, and why."""
    reasons = "; ".join(f"{reason} ({count}×)" for reason, count in found.failures.items())
    count = f"{found.num_failed} of {len(found.indices)} pairs"
    return f"no verdict on {count}: {found.stopped or reasons}"


def _shown(item: JudgedPair) -> dict[str, str]:
    pair = item.pair
    prompt = pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]
    return {
        "prompt": prompt,
        "reply_a": pair.reply_a,
        "reply_b": pair.reply_b,
        "verdict": item.verdict,
        "reason": item.reason,
    }
