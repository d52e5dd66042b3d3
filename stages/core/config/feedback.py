"""Whom to ask about which pairs, and how their judgments become data."""

import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stages.core.config.base import Count, Frozen, Positive, PositiveInt, Share, StageConfig
from stages.core.config.evaluation import JudgeConfig

GUIDELINES = (
    "Which answer serves the person who asked better? True beats fluent, and short beats long "
    "where both are right. Choose Both are bad where you would show neither."
)


NO_LOGINS = (
    "settings are logged and stored, so no reviewer's login may stand in one: name the round "
    "alone, such as round 1"
)


def names_reviewer(queue: str) -> bool:
    """Whether the name is that of a reviewer's own queue."""
    return " · " in queue


class FeedbackSource(Frozen):
    """Judgments from MLflow's review queues, read anew in each run. For preferences: the judged
    pairs; for sft: the better answers that reviewers wrote; for prompts: the prompts asked about.
    Pairs of the random share are held out, never trained on."""

    experiment: str = "feedback"
    """MLflow experiment that holds the queues."""
    queues: tuple[str, ...] = ()
    """Names of the rounds to read, without their reviewers; none: all."""
    annotators: Literal["human", "ai", "all"] = "human"
    """Whose judgments count. Where both judged a pair, people decide."""
    conflicts: Literal["majority", "drop", "keep"] = "majority"
    """Pairs on which annotators differ. majority: as most say, a draw is dropped; drop: none of
    them is kept; keep: as most say, with the margin that the votes give."""
    since: str = ""
    """Take judgments from this time on: ISO 8601 such as 2026-11-01 or 2026-11-01T08:00+01:00; UTC
    where no offset is given."""
    until: str = ""
    """Take judgments before this time."""
    min_gold_accuracy: Share = 0.6
    """Leave out annotators who answer a smaller share of at least 5 gold pairs as expected."""
    min_agreement: Share = 0.0
    """Leave out annotators who agree with the majority of the others on a smaller share of at least
    10 pairs; 0 leaves out none."""

    @field_validator("since", "until")
    @classmethod
    def _check_time(cls, text: str) -> str:
        try:
            text and datetime.datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("a time is written as 2026-11-01 or 2026-11-01T08:00+01:00") from None
        return text

    @field_validator("queues")
    @classmethod
    def _check_queues(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any(map(names_reviewer, names)):
            raise ValueError(NO_LOGINS)
        return names

    @field_validator("experiment")
    @classmethod
    def _check_experiment(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("name the experiment that holds the queues, such as feedback")
        return name


ModelName = Literal["policy", "sft", "champion", "challenger"]
"""Who replies: the policy or the SFT model of a run, or a policy of the model registry."""


class SamplePairsConfig(StageConfig):
    """Let models reply to prompts, and choose the pairs of replies worth a person's time."""

    stage: ClassVar[str] = "sample_pairs"
    num_pairs: PositiveInt = 200
    """Pairs to ask about, the random share included."""
    max_prompts: PositiveInt = 1000
    """Prompts that are answered at most, chosen by the seed."""
    num_replies: PositiveInt = 2
    """Replies of each model to each prompt at each temperature."""
    temperatures: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Sampling temperatures."""
    choice: Literal["disagreement", "margin", "random"] = "random"
    """Which pairs: those about which two reward models disagree most, those whose scores differ
    least, or any. disagreement needs a guard model, and becomes margin without one. On the demo
    neither taught clearly more than chance (tests/benchmarks/feedback_choice.py)."""
    random_share: Share = 0.2
    """Share of the pairs chosen at random, from prompts set apart for evaluation: never trained on.
    Keep it from round to round: a smaller one gives prompts back that were asked for evaluation."""
    gold_share: Share = 0.05
    """Share of the pairs taken from gold_paths, where there are any."""
    max_prompt_length: PositiveInt = 512
    """Longer prompts are left out, tokens."""
    max_completion_length: PositiveInt = 64
    """Longest reply, tokens."""
    seed: Count = 0
    """Seed of everything random in this stage."""


class ReviewQueueConfig(Frozen):
    """The queue that people work through, in MLflow's page Review."""

    experiment: str = "feedback"
    """MLflow experiment for the queues; give reviewers EDIT on it alone."""
    name: str = ""
    """Of the queue; empty: named after the day and the pairs."""
    reviewers: tuple[str, ...] = ()
    """Logins; each gets a queue of their own. None: one queue for whoever opens it."""
    overlap_share: Share = 0.1
    """Share of the pairs that two reviewers are asked about, to measure how far people agree."""
    guidelines: str = GUIDELINES
    """Shown beside the question."""
    ask_strength: bool = True
    """Ask how much better the answer is."""
    ask_better_answer: bool = True
    """Ask for a better answer, which becomes a demonstration."""

    @field_validator("reviewers")
    @classmethod
    def _check_reviewers(cls, logins: tuple[str, ...]) -> tuple[str, ...]:
        """Each once, whatever the spelling: two queues of one person would make them their own
        second opinion."""
        by_person: dict[str, str] = {}
        for login in filter(None, map(str.strip, logins)):
            by_person.setdefault(login.lower(), login)
        return tuple(by_person.values())


class PairJudgeConfig(JudgeConfig):
    """A language model that judges pairs, behind an endpoint that speaks OpenAI's protocol. Its key
    comes from the environment variable RLHF_JUDGE_API_KEY."""

    num_prompts: PositiveInt = 1000
    """Pairs that it judges at most, each in both orders."""


class JudgePairsConfig(StageConfig):
    """Let a language model judge pairs, each in both orders; what it contradicts itself about is a
    tie."""

    stage: ClassVar[str] = "judge_pairs"
    judge: PairJudgeConfig = PairJudgeConfig()
    seed: Count = 0
    """Seed of which pairs are judged, where there are more than judge.num_prompts."""
