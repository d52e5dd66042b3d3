"""What was measured of each model, before any averaging."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from stages.core.chat import Prompt
from stages.core.policy_gate import GUARD_MODEL, JUDGE, REWARD_MODEL

__all__ = ["GUARD_MODEL", "JUDGE", "REWARD_MODEL"]

MODELS = ("base", "sft", "policy")
"""Always measured."""
CHAMPION = "champion"
"""Measured where there is one."""
CONTRASTS = (("policy", "sft"), ("policy", CHAMPION), ("sft", "base"))
"""Of the models, the most telling first."""


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
class Measure:
    """Which replies have a property, such as being toxic."""

    label: str
    explanation: str
    values: dict[str, list[float]]
    """By model: 1 for each reply that has it, else 0; item i of each belongs to one prompt."""


@dataclass(frozen=True)
class Total:
    """A number of replies, of all that a model gave."""

    label: str
    explanation: str
    values: dict[str, float]
    """By model."""


@dataclass(frozen=True)
class Judged:
    """What the judge made of two models' replies to some of the prompts."""

    outcomes: list[float]
    """1 where it prefers the first model's reply, 0 where the second's, one half where neither."""
    first_lengths: list[int]
    """Tokens of the replies that it compared."""
    second_lengths: list[int]
    note: str
    """How consistent it was, and what it did not answer."""


@dataclass(frozen=True)
class Missing:
    """Something that the report does not show, and why."""

    what: str
    reason: str
    failed: bool = False
    """It was asked for and went wrong; else it was not asked for, or there was nothing."""


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured."""

    prompts: list[Prompt]
    replies: dict[str, Replies]
    """By model, the champion last."""
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
    references: list[str] = field(default_factory=list)
    """Replies that people gave to the prompts of held-out demonstrations."""
    replies_with_reference: dict[str, list[str]] = field(default_factory=dict)
    """By model, its replies to the same prompts."""
    measures: dict[str, Measure] = field(default_factory=dict)
    """On safety, by the name of the metric."""
    totals: dict[str, Total] = field(default_factory=dict)
    """Likewise."""
    judged: dict[tuple[str, str], Judged] = field(default_factory=dict)
    """By (first, second) model."""
    judge_dollars: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """PPO's updates, in order."""
    missing: tuple[Missing, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.replies)

    def contrasts(self) -> Iterator[tuple[str, str]]:
        """Those of which both models answered."""
        return (pair for pair in CONTRASTS if set(pair) <= self.replies.keys())
