"""A frank reading of the figures: what alignment gained, and what looks wrong.

Pure: from figures to sentences. A difference counts only when its 95 % interval excludes 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from stages.core.statistics import Estimate
from stages.evaluate.comparison import REWARD_MODEL, Contrast, Figures

Level = Literal["good", "warning", "bad"]

LENGTH_GROWTH = 1.25
"""Replies longer than this many times the SFT model's are flagged: a common way to please a reward
model without being better (Singhal et al. 2023)."""
LOW_EOS_RATE = 0.9
"""Fewer replies ending by themselves are flagged."""
EOS_RATE_DROP = 0.05
HIGH_KL = 25.0
"""Nats a reply. Gao et al. (2022, figure 1) see true scores fall beyond some tens of nats."""
LOW_KL = 0.05
"""Below this the policy answers as the SFT model does."""
DIVERSITY_DROP = 0.7
"""A share of distinct word pairs below this times the SFT model's is flagged."""


@dataclass(frozen=True)
class Finding:
    """One statement of the verdict."""

    level: Level
    text: str


def summarise(figures: Figures) -> str:
    """The verdict in one sentence or two."""
    contrasts = figures.contrasts["policy", "sft"]
    independent = [contrasts[scorer] for scorer in contrasts if scorer != REWARD_MODEL]
    if not independent:
        rose = contrasts[REWARD_MODEL].difference.low > 0
        verb = "raised" if rose else "did not clearly raise"
        return f"PPO {verb} the reward model's score; no independent scorer says more."
    if all(contrast.difference.low > 0 for contrast in independent):
        text = "PPO made the replies better"
    elif any(contrast.difference.high < 0 for contrast in independent):
        text = "PPO made the replies worse"
    else:
        text = "PPO made no clear difference to the replies' quality"
    text += " than the SFT model's." if text.endswith(("better", "worse")) else "."
    flagged = sum(finding.level != "good" for finding in judge(figures))
    if not flagged:
        return f"{text} Nothing looks wrong."
    return f"{text} {flagged} {'points need' if flagged > 1 else 'point needs'} a look."


def judge(figures: Figures) -> list[Finding]:
    """The verdict, most important finding first: did alignment help, is the proxy to be trusted,
    is the reward model usable, and what else is odd about the policy's replies."""
    return [
        *_gain(figures),
        *_over_optimisation(figures),
        *_reward_model(figures),
        *_replies(figures),
    ]


def _gain(figures: Figures) -> Iterator[Finding]:
    """Judged by the scorers that no training stage saw; by the reward model only for want of
    them."""
    after, before = figures.contrasts["policy", "sft"], figures.contrasts["sft", "base"]
    independent = [scorer for scorer in after if scorer != REWARD_MODEL]
    for scorer in independent or [REWARD_MODEL]:
        name = scorer_name(scorer)
        yield _change(after[scorer], f"PPO: by {name} the policy's replies are", "the SFT model's")
        yield _change(before[scorer], f"SFT: by {name} the SFT model's replies are", "the base's")
    if not independent:
        yield Finding(
            "warning",
            "Only the reward model judged the replies. It is what PPO maximised, so a gain here "
            "does not show that people would prefer the policy: add a scorer of your own "
            "(evaluate.scorers) or let people compare the samples below.",
        )


def _change(contrast: Contrast, subject: str, other: str) -> Finding:
    difference, wins = contrast.difference, contrast.win_rate
    amounts = f"(mean difference {signed(difference)}; win rate {percent(wins.value)})"
    if difference.low > 0:
        return Finding("good", f"{subject} better than {other} {amounts}.")
    if difference.high < 0:
        return Finding("bad", f"{subject} worse than {other} {amounts}.")
    return Finding("warning", f"{subject} not clearly different from {other} {amounts}.")


def _over_optimisation(figures: Figures) -> Iterator[Finding]:
    contrasts = figures.contrasts["policy", "sft"]
    if contrasts[REWARD_MODEL].difference.low <= 0:
        yield Finding(
            "warning",
            "The reward model's own score did not clearly rise, so PPO did not reach what it was "
            "asked to maximise: train longer, or lower ppo.kl_coef.",
        )
        return
    for scorer, contrast in contrasts.items():
        if scorer == REWARD_MODEL:
            continue
        if contrast.difference.low > 0:
            text = f"The gain is real: {scorer_name(scorer)} rises with the reward model's score."
            yield Finding("good", text)
        else:
            moved = "falls" if contrast.difference.high < 0 else "does not follow"
            yield Finding(
                "bad",
                f"Over-optimisation: the reward model's score rises but {scorer_name(scorer)} "
                f"{moved}. The policy exploits the reward model's mistakes: raise ppo.kl_coef, "
                "stop earlier, or collect preferences on the policy's replies.",
            )


def _reward_model(figures: Figures) -> Iterator[Finding]:
    found = figures.reward_model
    if found is None:
        yield Finding("warning", "No held-out preferences: the reward model was not tested.")
        return
    accuracy, low, high = map(percent, found.accuracy)
    amounts = (
        f"{accuracy} of {found.num_pairs} held-out pairs ranked as the annotators did (95\u00a0% "
        f"interval {low} to {high}), against {percent(found.length_baseline.value)} by always "
        "preferring the longer reply"
    )
    if found.accuracy.low <= 0.5:
        text = f"The reward model is not clearly better than a coin: {amounts}."
        yield Finding("bad", f"{text} Scores by it mean nothing.")
    elif found.advantage.low <= 0:
        text = f"The reward model is no clear improvement on counting characters: {amounts}."
        yield Finding("bad", f"{text} PPO may have learned length alone.")
    else:
        yield Finding("good", f"The reward model is usable: {amounts}.")


def _replies(figures: Figures) -> Iterator[Finding]:
    policy, sft = figures.models["policy"], figures.models["sft"]
    growth = figures.length_growth
    if growth.low > 0 and policy.length.value > LENGTH_GROWTH * sft.length.value:
        yield Finding(
            "warning",
            f"Replies grew from {sft.length.value:.1f} to {policy.length.value:.1f} tokens on "
            "average: check in the samples that the additional text is worth reading.",
        )
    if policy.eos_rate < LOW_EOS_RATE or policy.eos_rate < sft.eos_rate - EOS_RATE_DROP:
        yield Finding(
            "warning",
            f"{percent(1 - policy.eos_rate)} of the policy's replies were cut off at the length "
            f"limit (SFT model: {percent(1 - sft.eos_rate)}): raise ppo.missing_eos_penalty or "
            "the limit.",
        )
    if policy.kl.value > HIGH_KL:
        yield Finding(
            "warning",
            f"The policy is far from the SFT model (KL {policy.kl.value:.1f} nats a reply): raise "
            "ppo.kl_coef if replies lose sense or variety.",
        )
    elif policy.kl.value < LOW_KL:
        yield Finding(
            "warning",
            f"The policy hardly differs from the SFT model (KL {policy.kl.value:.3f} nats a "
            "reply): PPO had little effect.",
        )
    if policy.distinct_2 < DIVERSITY_DROP * sft.distinct_2:
        yield Finding(
            "warning",
            f"Variety fell: {percent(policy.distinct_2)} of the policy's word pairs are distinct, "
            f"{percent(sft.distinct_2)} of the SFT model's.",
        )


def scorer_name(scorer: str) -> str:
    """A scorer in running text."""
    return "the reward model's score" if scorer == REWARD_MODEL else f"the score “{scorer}”"


def percent(share: float) -> str:
    """0.834 → 83 %; rounded so that only a true 0 or 1 reads 0 % or 100 %."""
    rounded = round(100 * share)
    if rounded in (0, 100) and 100 * share != rounded:
        return f"{min(max(100 * share, 0.1), 99.9):.1f}\u00a0%"
    return f"{rounded}\u00a0%"


def signed(estimate: Estimate) -> str:
    """+0.310, 95 % interval +0.250 to +0.370."""
    numbers = (f"{value:+.3f}".replace("-", "−") for value in estimate)
    value, low, high = numbers
    return f"{value}, 95\u00a0% interval {low} to {high}"
