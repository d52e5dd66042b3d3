"""What a user sees of a PPO run: figures and a line an update, a table of samples, curves."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stages.core.chat import prompt_text
from stages.ppo.guard import Alarm
from stages.ppo.losses import masked_mean
from stages.ppo.rollout import Rollout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES_SHOWN = 8


def summarize(rollout: Rollout, kl_coef: float) -> dict[str, float]:
    """Figures of a rollout under TRL's names; KL and rewards are sums over a reply, in nats and
    standard deviations of the score."""
    figures = {
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(correction=0)),
        "objective/kl": float(rollout.kl.sum(-1).mean()),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(masked_mean(rollout.entropy, rollout.mask)),
        "objective/non_score_reward": float(-kl_coef * rollout.kl_penalty.sum(-1).mean()),
        "objective/rlhf_reward": float(rollout.rewards.sum(-1).mean()),
        "val/eos_rate": float(rollout.has_eos.float().mean()),
        "val/completion_length": float(rollout.lengths.float().mean()),
        "val/num_tokens": float(rollout.lengths.sum()),
        "val/distinct_2": _distinct_bigrams([reply.completion_ids for reply in rollout.replies]),
        "val/explained_variance": _explained_variance(rollout),
    }
    for name in rollout.replies[0].scores:
        scores = [reply.scores[name] for reply in rollout.replies]
        figures[f"scores/{name}"] = sum(scores) / len(scores)
    return figures


def history_row(update: int, episodes: int, figures: dict[str, float]) -> dict[str, float]:
    """One line of history.jsonl."""
    return {
        "update": update,
        "episodes": episodes,
        "score": figures["objective/scores"],
        "kl": figures["objective/kl"],
        "length": figures["val/completion_length"],
        "eos_rate": figures["val/eos_rate"],
        "entropy": figures["objective/entropy"],
    }


def line(row: dict[str, float], num_updates: int, seconds_left: float) -> str:
    """What the terminal shows of an update."""
    minutes, seconds = divmod(round(seconds_left), 60)
    return (
        f"update {row['update']}/{num_updates}  episodes {row['episodes']}  "
        f"score {row['score']:.3f}  kl {row['kl']:.2f}  length {row['length']:.1f}  "
        f"eos {row['eos_rate']:.2f}  entropy {row['entropy']:.2f}  {minutes}:{seconds:02d} left"
    )


def samples(rollout: Rollout, update: int) -> Iterator[dict[str, Any]]:
    """Rows of the samples table."""
    kl = rollout.kl.sum(-1)
    for reply in rollout.replies[:SAMPLES_SHOWN]:
        yield {
            "update": update,
            "prompt": prompt_text(reply.prompt),
            "response": reply.completion,
            "score": round(float(rollout.scores[reply.row]), 4),
            "kl": round(float(kl[reply.row]), 4),
            "tokens": len(reply.completion_ids),
            "ended": bool(rollout.has_eos[reply.row]),
        }


def curves(history: Sequence[dict[str, float]], alarms: Sequence[Alarm]) -> "Figure":
    """Score, KL, length and entropy by episodes; the guard's alarms as dashed lines."""
    from matplotlib.figure import Figure  # 30 MB that the training before does without

    figure = Figure(figsize=(9, 6))
    panels = (
        ("score", "mean score"),
        ("kl", "KL to the reference, nats a reply"),
        ("length", "reply length, tokens"),
        ("entropy", "entropy, nats a token"),
    )
    episodes = [row["episodes"] for row in history]
    batch_size = episodes[0] / history[0]["update"]
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        axes.plot(episodes, [row[name] for row in history], color="#0072b2")
        for alarm in alarms:
            axes.axvline(alarm.update * batch_size, color="#d55e00", linestyle="--")
        axes.set(xlabel="episodes", ylabel=label)
        axes.grid(alpha=0.3)
    if alarms:
        figure.suptitle("dashed: alarm of the guard")
    figure.tight_layout()
    return figure


def _distinct_bigrams(completions: list[list[int]]) -> float:
    """Share of token pairs that occur first, over all replies: low is repetitive."""
    bigrams = [pair for ids in completions for pair in pairwise(ids)]
    return len(set(bigrams)) / len(bigrams) if bigrams else 1.0


def _explained_variance(rollout: Rollout) -> float:
    returns = rollout.returns[rollout.mask]
    errors = returns - rollout.values[rollout.mask]
    return float(1 - errors.var(correction=0) / returns.var(correction=0).clamp(min=1e-8))
