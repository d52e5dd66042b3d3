"""What the judge said in figures: verdicts, how far it can be trusted, and what it cost."""

from collections import Counter
from collections.abc import Sequence

from stages.core.judge import Judgements
from stages.core.statistics import share
from stages.judge_pairs.verdicts import VERDICTS, JudgedPair


def figures(judged: Sequence[JudgedPair], found: Judgements) -> dict[str, float]:
    """Every figure by name; shares that these pairs do not give are left out."""
    counts = Counter(item.verdict for item in judged)
    metrics: dict[str, float] = {
        "num_pairs": len(found.indices),
        "num_judged": len(judged),
        "num_failed": found.num_failed,
        "num_equal": found.num_equal,
        **{f"verdicts/{verdict}": counts[verdict] for verdict in VERDICTS.values()},
        "questions": found.num_questions,
        "questions_answered_before": found.num_kept,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "answers_without_usage": found.num_without_usage,
        "dollars": found.dollars,
    }
    num_compared = len(judged) - found.num_equal
    if num_compared:
        metrics["inconsistent_share"] = found.num_inconsistent / num_compared
    if found.first_position_share is not None:
        metrics["first_position_share"] = found.first_position_share
    return {name: float(value) for name, value in metrics.items()} | _gold(judged)


def _gold(judged: Sequence[JudgedPair]) -> dict[str, float]:
    """How often the judge answers as is known to be right, with Wilson's interval. It is not asked
    whether both are bad: where that is the answer, a tie is right."""
    outcomes = [
        float(item.verdict == ("tie" if item.pair.expected == "both_bad" else item.pair.expected))
        for item in judged
        if item.pair.expected is not None
    ]
    if not outcomes:
        return {}
    accuracy = share(outcomes)
    return {
        "num_gold": float(len(outcomes)),
        "gold_accuracy": accuracy.value,
        "gold_accuracy_low": accuracy.low,
        "gold_accuracy_high": accuracy.high,
    }
