"""From per-reply measurements to the figures of the report: means, differences, win rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.core import statistics
from stages.core.chat import Prompt
from stages.core.statistics import Estimate

MODELS = ("base", "sft", "policy")
CONTRASTS = (("sft", "base"), ("policy", "sft"))
REWARD_MODEL = "reward_model"


@dataclass(frozen=True)
class Replies:
    """One model's replies; item i of every list belongs to prompt i."""

    texts: list[str]
    lengths: list[int]
    """Tokens, EOS not counted."""
    ended: list[bool]
    """Whether the model ended the reply itself, by EOS, within the limit."""
    kl: list[float]
    """Sum over the reply's tokens of log p_model - log p_sft, nats."""
    scores: dict[str, list[float]]
    """By scorer; the reward model's are raw."""


@dataclass(frozen=True)
class PairScores:
    """Reward-model scores and lengths of the held-out preference pairs, shape (N,) each."""

    chosen: list[float]
    rejected: list[float]
    chosen_length: list[int]
    """Characters."""
    rejected_length: list[int]


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured, before any averaging."""

    prompts: list[Prompt]
    replies: dict[str, Replies]
    """By model."""
    score_mean: float
    """The reward model's mean score of the SFT model's samples, from its own training."""
    score_std: float
    scorers: tuple[str, ...] = ()
    """Names of the scorers beside the reward model."""
    bits_per_byte: dict[str, float] = field(default_factory=dict)
    """By model; empty without held-out documents."""
    num_bytes: int = 0
    sft_loss: dict[str, float] = field(default_factory=dict)
    """By model, nats per completion token; empty without held-out demonstrations."""
    num_demonstrations: int = 0
    pairs: PairScores | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    """PPO's updates, in order."""


@dataclass(frozen=True)
class ModelFigures:
    """One model's column of the headline table."""

    scores: dict[str, Estimate]
    normalized_score: float
    """Reward-model score in standard deviations of the SFT model's samples."""
    kl: Estimate
    length: Estimate
    eos_rate: float
    distinct_1: float
    distinct_2: float


@dataclass(frozen=True)
class Contrast:
    """Two models on the same prompts, by one scorer: the first against the second."""

    difference: Estimate
    win_rate: Estimate


@dataclass(frozen=True)
class RewardModelFigures:
    """The reward model against the held-out preferences."""

    num_pairs: int
    accuracy: Estimate
    length_baseline: Estimate
    """Accuracy of preferring the longer reply."""
    advantage: Estimate
    """Accuracy above the length baseline, pair by pair."""
    margin: Estimate
    """Score of the chosen minus score of the rejected reply."""


@dataclass(frozen=True)
class Figures:
    """What the report states."""

    models: dict[str, ModelFigures]
    contrasts: dict[tuple[str, str], dict[str, Contrast]]
    """By (first, second) model and scorer."""
    length_growth: Estimate
    """Tokens a reply by which the policy's replies are longer than the SFT model's."""
    reward_model: RewardModelFigures | None


def compare(measured: Measurements, *, num_bootstrap_samples: int, seed: int) -> Figures:
    """Average, contrast and put intervals around the measurements."""
    draw = {"num_samples": num_bootstrap_samples, "seed": seed}
    scorers = (REWARD_MODEL, *measured.scorers)
    replies = measured.replies

    def contrast(first: str, second: str, scorer: str) -> Contrast:
        sides = replies[first].scores[scorer], replies[second].scores[scorer]
        return Contrast(
            statistics.paired_difference(*sides, **draw), statistics.win_rate(*sides, **draw)
        )

    return Figures(
        models={
            name: _model_figures(replies[name], measured.score_mean, measured.score_std, draw)
            for name in MODELS
        },
        contrasts={
            pair: {scorer: contrast(*pair, scorer) for scorer in scorers} for pair in CONTRASTS
        },
        length_growth=statistics.paired_difference(
            replies["policy"].lengths, replies["sft"].lengths, **draw
        ),
        reward_model=_reward_model_figures(measured.pairs, draw) if measured.pairs else None,
    )


def _model_figures(
    replies: Replies, score_mean: float, score_std: float, draw: Mapping[str, int]
) -> ModelFigures:
    scores = {
        scorer: statistics.bootstrap_mean(values, **draw)
        for scorer, values in replies.scores.items()
    }
    return ModelFigures(
        scores=scores,
        normalized_score=(scores[REWARD_MODEL].value - score_mean) / score_std,
        kl=statistics.bootstrap_mean(replies.kl, **draw),
        length=statistics.bootstrap_mean(replies.lengths, **draw),
        eos_rate=sum(replies.ended) / len(replies.ended),
        distinct_1=statistics.distinct_n(replies.texts, 1),
        distinct_2=statistics.distinct_n(replies.texts, 2),
    )


def _reward_model_figures(pairs: PairScores, draw: Mapping[str, int]) -> RewardModelFigures:
    lengths = pairs.chosen_length, pairs.rejected_length
    return RewardModelFigures(
        num_pairs=len(pairs.chosen),
        accuracy=statistics.accuracy(pairs.chosen, pairs.rejected),
        length_baseline=statistics.accuracy(*lengths),
        advantage=statistics.paired_difference(
            statistics.win_outcomes(pairs.chosen, pairs.rejected),
            statistics.win_outcomes(*lengths),
            **draw,
        ),
        margin=statistics.paired_difference(pairs.chosen, pairs.rejected, **draw),
    )


def flat_metrics(measured: Measurements, figures: Figures) -> dict[str, float]:
    """Every figure under one flat name, as MLflow and the gate want it: ``kl_policy``,
    ``oracle_sft_minus_base_low``, ``win_rate_policy_vs_sft`` … The reward model's scores are named
    ``score``, those of other scorers as the scorer."""
    metrics: dict[str, float] = {}

    def add(name: str, estimate: Estimate) -> None:
        metrics[name] = estimate.value
        metrics[f"{name}_low"] = estimate.low
        metrics[f"{name}_high"] = estimate.high

    for name, model in figures.models.items():
        for scorer, estimate in model.scores.items():
            add(f"{_metric_name(scorer)}_{name}", estimate)
        metrics[f"score_normalized_{name}"] = model.normalized_score
        add(f"kl_{name}", model.kl)
        add(f"length_{name}", model.length)
        metrics[f"eos_rate_{name}"] = model.eos_rate
        metrics[f"distinct_1_{name}"] = model.distinct_1
        metrics[f"distinct_2_{name}"] = model.distinct_2
    for (first, second), by_scorer in figures.contrasts.items():
        for scorer, contrast in by_scorer.items():
            prefix = "" if scorer == REWARD_MODEL else f"{scorer}_"
            add(f"{_metric_name(scorer)}_{first}_minus_{second}", contrast.difference)
            add(f"{prefix}win_rate_{first}_vs_{second}", contrast.win_rate)
    add("length_policy_minus_sft", figures.length_growth)
    metrics |= {f"bits_per_byte_{name}": value for name, value in measured.bits_per_byte.items()}
    metrics |= {f"sft_loss_{name}": value for name, value in measured.sft_loss.items()}
    if figures.reward_model is not None:
        add("reward_model_accuracy", figures.reward_model.accuracy)
        add("length_baseline_accuracy", figures.reward_model.length_baseline)
        add("reward_model_margin", figures.reward_model.margin)
    return metrics


def reply_rows(measured: Measurements, prompt_texts: Sequence[str]) -> list[dict[str, object]]:
    """One row a prompt with every model's reply and its measurements, for replies.jsonl."""
    return [
        {"prompt": prompt}
        | {
            name: {
                "reply": replies.texts[index],
                "scores": {scorer: values[index] for scorer, values in replies.scores.items()},
                "kl": replies.kl[index],
                "length": replies.lengths[index],
                "ended": replies.ended[index],
            }
            for name, replies in measured.replies.items()
        }
        for index, prompt in enumerate(prompt_texts)
    ]


def _metric_name(scorer: str) -> str:
    return "score" if scorer == REWARD_MODEL else scorer
