"""Figures and tables of the PPO benchmark, from what the sides' processes answered."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_floor import Shape, update_flops
from ppo_job import Answer, Job, Update

SIDES = ("trl", "ours")
LEARNING_CASES = ("separate", "default")
"""Cases of which there are reward curves."""
PHASES = ("generate", "score", "optimize", "other")
MEMORY = ("imports_mb", "training_mb", "peak_mb")

Answers = dict[tuple[str, str], list[Answer]]
"""By case and side, one a round or seed."""
Summaries = dict[tuple[str, str], dict[str, float]]
"""What ``summarize`` returned, by case and side."""


def measured(answer: Answer) -> list[Update]:
    """The updates after the first, which warms up; the first where there is no other."""
    return answer.updates[1:] or answer.updates


def milliseconds_a_token(updates: Sequence[Update]) -> list[float]:
    """CPU-milliseconds of each update by tokens of its replies."""
    return [1000 * update.total / update.num_tokens for update in updates]


def summarize(answers: Sequence[Answer]) -> dict[str, float]:
    """Medians over all measured updates: CPU-seconds an update, and what it took a token."""
    updates = [update for answer in answers for update in measured(answer)]
    return {
        **{f"{name}_s": statistics.median(getattr(u, name) for u in updates) for name in PHASES},
        "total_s": statistics.median(update.total for update in updates),
        "ms_per_token": statistics.median(milliseconds_a_token(updates)),
        "tokens": statistics.mean(update.num_tokens for update in updates),
        "num_updates": len(updates),
        **{name: statistics.median(getattr(a, name) for a in answers) for name in MEMORY},
    }


def case_names(summaries: Summaries) -> list[str]:
    """Each case once."""
    return list(dict.fromkeys(name for name, _ in summaries))


def ratio(summaries: Summaries, name: str, figure: str) -> float | None:
    """TRL's figure over ours; none where a side did not run."""
    if (name, "trl") not in summaries or (name, "ours") not in summaries:
        return None
    return round(summaries[name, "trl"][figure] / summaries[name, "ours"][figure], 3)


def memory_share(summaries: Summaries, name: str) -> float | None:
    """Our peak memory over TRL's; none where a side did not run."""
    times = ratio(summaries, name, "peak_mb")
    return None if times is None else round(1 / times, 3)


def ratios_by_round(timed: Answers, name: str) -> list[float]:
    """The ratio of the times a token in each round, which shows how far chance moves it."""
    return [
        round(
            statistics.median(milliseconds_a_token(measured(trl)))
            / statistics.median(milliseconds_a_token(measured(ours))),
            3,
        )
        for trl, ours in zip(
            timed.get((name, "trl"), ()), timed.get((name, "ours"), ()), strict=False
        )
    ]


def estimate_floor(
    policy: Path, timed: Answers, summaries: Summaries, rates: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """The floor of ``separate`` a reply token, for the lengths that TRL's side sampled; empty
    where it did not run.

    Args:
        policy: folder of the model.
        rates: measured operations a CPU-second of matrix products and of plain training.
    """
    if ("separate", "trl") not in timed:
        return {}
    updates = [update for answer in timed["separate", "trl"] for update in answer.updates]
    shape = Shape.read(policy)
    flops = sum(
        update_flops(shape, update.prompt_lengths, update.reply_lengths, Job.num_epochs)
        for update in updates
    )
    rate = statistics.median(rate["matmul"] for rate in rates)
    flops_per_token = flops / sum(update.num_tokens for update in updates)
    floor = {
        "gflops_per_update": flops / len(updates) / 1e9,
        "mflops_per_token": flops_per_token / 1e6,
        "matmul_gflops_per_second": rate / 1e9,
        "ms_per_token": 1000 * flops_per_token / rate,
        "share_plain_training": statistics.median(r["training"] / r["matmul"] for r in rates),
    }
    for side in SIDES:
        if ("separate", side) in summaries:
            share = floor["ms_per_token"] / summaries["separate", side]["ms_per_token"]
            floor[f"share_{side}"] = share
    return floor


def learning_figures(answer: Answer) -> dict[str, float]:
    """A reward curve in figures."""
    scores = [update.mean_score for update in answer.updates]
    first, last = statistics.mean(scores[:3]), statistics.mean(scores[-5:])
    return {
        "first": first,
        "mean": statistics.mean(scores),
        "last": last,
        "kl": statistics.mean(update.kl for update in answer.updates[-5:]),
    }


def to_json(
    summaries: Summaries, timed: Answers, floor: dict[str, float], learned: Answers
) -> dict[str, Any]:
    """The JSON object of the last line."""
    share = floor.get("share_ours")
    result: dict[str, Any] = {
        "ratio_separate": ratio(summaries, "separate", "ms_per_token"),
        "ratio_separate_full_length": ratio(summaries, "separate_full_length", "ms_per_token"),
        "ratio_default": ratio(summaries, "default", "ms_per_token"),
        # Ours over TRL's: what people ask of memory is the share that is left.
        "memory_ratio_small": memory_share(summaries, "separate"),
        "memory_ratio_small_default": memory_share(summaries, "default"),
        "memory_ratio_135m": memory_share(summaries, "memory_135m_default"),
        "memory_ratio_135m_separate": memory_share(summaries, "memory_135m"),
        "floor_share": None if share is None else round(share, 3),
    }
    for name, figure in itertools.product(LEARNING_CASES, ("mean", "last")):
        result[f"score_{figure}_{name}"] = {
            side: [round(learning_figures(answer)[figure], 3) for answer in learned[name, side]]
            for side in SIDES
            if (name, side) in learned
        } or None
    return result | {
        "cases": {
            name: {
                side: {key: round(value, 4) for key, value in summaries[name, side].items()}
                for side in SIDES
                if (name, side) in summaries
            }
            | {"ratios_by_round": ratios_by_round(timed, name)}
            for name in case_names(summaries)
        },
        "floor": {key: round(value, 4) for key, value in floor.items()},
        "learning": {
            f"{name}_{side}": [learning_figures(answer) for answer in answers]
            for (name, side), answers in learned.items()
        },
    }


# ------------------------------------------------------------------------------------- tables


TIMES = {
    "generate": ("generate_s", 2),
    "score": ("score_s", 2),
    "optimize": ("optimize_s", 2),
    "other": ("other_s", 2),
    "total": ("total_s", 2),
    "tokens": ("tokens", 0),
    "ms/token": ("ms_per_token", 2),
}
MEMORIES = {"imports": ("imports_mb", 0), "training": ("training_mb", 0), "in all": ("peak_mb", 0)}
"""Head of a column, and the figure in it with its digits."""
WITHOUT_RATIO = ("other", "tokens", "imports")


def print_timings(summaries: Summaries, timed: Answers) -> None:
    """What an update and a token take."""
    if not summaries:
        return
    print("CPU-seconds an update on 1 thread; medians over updates and rounds")
    print_figures(summaries, TIMES)
    for name in case_names(summaries):
        if rounds := ratios_by_round(timed, name):
            print(f"ratio a token by round, {name}: " + ", ".join(f"{r:.2f}" for r in rounds))


def print_memory(summaries: Summaries) -> None:
    """The most memory after the imports, after the last update and at the end."""
    if summaries:
        print("\npeak resident set of the process, MB")
        print_figures(summaries, MEMORIES)


def print_figures(summaries: Summaries, columns: Mapping[str, tuple[str, int]]) -> None:
    """A row a side, and one with the ratios."""
    print(f"{'':<29}" + "".join(f"{head:>10}" for head in columns))
    for name in case_names(summaries):
        sides = [side for side in SIDES if (name, side) in summaries]
        for side in sides:
            row = summaries[name, side]
            cells = [f"{row[key]:>10.{digits}f}" for key, digits in columns.values()]
            print(f"{name:<23}{side:<6}" + "".join(cells))
        if len(sides) == len(SIDES):
            ratios = [
                "" if head in WITHOUT_RATIO else f"{ratio(summaries, name, key):.2f}"
                for head, (key, _) in columns.items()
            ]
            print(f"{'':<23}{'ratio':<6}" + "".join(f"{cell:>10}" for cell in ratios))


def print_floor(floor: dict[str, float]) -> None:
    """The floor, and how near the sides come to it."""
    if not floor:
        return
    print(
        f"\nfloor of separate: {floor['gflops_per_update']:.0f} GFLOP an update, "
        f"{floor['ms_per_token']:.2f} ms a token at {floor['matmul_gflops_per_second']:.0f} "
        "GFLOP a CPU-second"
    )
    for name, what in zip(
        ("share_trl", "share_ours", "share_plain_training"),
        (*SIDES, "plain training steps of transformers, without padding, beside it"),
        strict=True,
    ):
        if name in floor:
            print(f"{floor[name]:>10.0%} of the time taken by {what}")


def print_learning(learned: Answers) -> None:
    """The reward curves in figures."""
    if not learned:
        return
    print(
        "\nreward curves: mean score of the first 3, all and the last 5 updates, KL of the last 5"
    )
    print(f"{'':<29}{'seed':>5}" + "".join(f"{head:>9}" for head in ("first", "all", "last", "KL")))
    for (name, side), answers in learned.items():
        for seed, answer in enumerate(answers):
            cells = [f"{value:>9.2f}" for value in learning_figures(answer).values()]
            print(f"{name:<23}{side:<6}{seed:>5}" + "".join(cells))
