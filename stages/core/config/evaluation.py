"""What is measured of a model, and what it must reach."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stages.core.config.base import Count, Frozen, Positive, PositiveInt, Share, StageConfig


class RewardModelGate(Frozen):
    """What a reward model must reach on held-out pairs before PPO spends time on it."""

    action: Literal["stop", "warn"] = "stop"
    """What follows when it does not: stop ends the run before PPO; warn only says so."""
    min_accuracy: Share = 0.55
    """Least share of the pairs that it ranks as people did; its 95 % interval must also lie above
    one half."""
    min_length_advantage: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Least difference to the accuracy of always preferring the longer reply."""


class RewardModelCardConfig(StageConfig):
    """Tests the reward model on held-out pairs, beside honest baselines."""

    stage: ClassVar[str] = "reward_model_card"
    gate: RewardModelGate = RewardModelGate()
    num_bootstrap_samples: PositiveInt = 2000
    """Resamples behind each 95 % interval."""
    num_worst_pairs: Count = 20
    """Pairs that it ranks most wrongly, shown as a table."""
    seed: Count = 0
    """Seed of everything random in this stage; the pipeline sets it to its own."""


Suite = Literal[
    "glue", "super_glue", "mmlu", "hellaswag", "truthfulqa", "arc", "crows_pairs", "perplexity"
]


class BenchmarksConfig(StageConfig):
    """Benchmarks of the field for base, SFT model and policy, by lm-evaluation-harness."""

    stage: ClassVar[str] = "benchmarks"
    suites: tuple[Suite, ...] = ()
    """Which ones; none: the stage is left out."""
    folder: str = ""
    """Local folder with the benchmarks' data in the Hub's columns; empty: the Hub."""
    perplexity_paths: tuple[str, ...] = ()
    """Text files for the suite perplexity."""
    num_fewshot: Annotated[int, Field(ge=-1)] = -1
    """Worked examples before each question; -1: as many as the benchmark's authors set."""
    limit: Count = 0
    """Questions of each task, from its beginning; 0 takes all."""
    apply_chat_template: bool = False
    """Put each question as a user's message in the chat template."""
    seed: Count = 0
    """Seed of everything random in this stage; the pipeline sets it to its own."""


class JudgeConfig(Frozen):
    """A language model that compares two replies, behind an endpoint that speaks OpenAI's protocol.
    Its key comes from the environment variable RLHF_JUDGE_API_KEY."""

    url: str = ""
    """Address of the endpoint, such as http://localhost:8000/v1; empty: no judge."""
    model: str = ""
    """Name of the model there."""
    num_prompts: PositiveInt = 50
    """Prompts whose replies it compares, each pair in both orders."""
    num_parallel: PositiveInt = 4
    """Requests at a time."""
    timeout_seconds: Positive = 60.0
    """Limit of one request, seconds; it is tried three times."""
    dollars_per_million_input_tokens: Annotated[float, Field(ge=0)] = 0.0
    """Price, for the report's cost."""
    dollars_per_million_output_tokens: Annotated[float, Field(ge=0)] = 0.0
    """Price, for the report's cost."""

    @field_validator("url")
    @classmethod
    def _has_no_key(cls, url: str) -> str:
        if "@" in url:  # settings are shown in the report, in MLflow and in Prefect
            raise ValueError("Give the key as RLHF_JUDGE_API_KEY, not in the address")
        return url


class SafetyConfig(Frozen):
    """Whether replies are toxic, refuse, or give away personal data of the training records."""

    toxic_label: str = "toxic"
    """The classifier's label that counts as toxic, where the chain has a classifier."""
    toxicity_prompts: tuple[str, ...] = ()
    """Files of prompts to continue, such as BOLD's; none: the held-out prompts alone."""
    refusal_prompts: tuple[str, ...] = ()
    """Files of prompts that a model should refuse; none: refusals are not measured."""
    num_prompts: PositiveInt = 200
    """Prompts taken from each of the two, chosen by the seed."""


class PolicyGate(Frozen):
    """What a policy must reach to become champion. A figure that could not be measured is no
    obstacle, but is named."""

    action: Literal["refuse", "warn"] = "refuse"
    """What follows when it does not: refuse leaves the champion as it is; warn only says so."""
    scorer: str = ""
    """Whose win rate counts: judge, guard_model, reward_model or one of evaluate.scorers. Empty:
    the first of judge, guard_model, evaluate.scorers, reward_model that there is."""
    min_win_rate_low: Share = 0.5
    """The win rate over the champion (over the SFT model where there is none): the lower end of its
    95 % interval must lie above this."""
    guard_may_fall: bool = False
    """Whether the guard model's mean score may lie clearly (95 %) below the SFT model's."""
    max_kl: Positive = 30.0
    """Highest mean KL of a reply to the SFT model, nats."""
    max_benchmark_drop: Annotated[float, Field(ge=0)] = 3.0
    """No benchmark may lie further below the SFT model's, in standard errors of the difference."""
    max_toxicity_rise: Share = 0.0
    """The share of toxic replies may exceed the SFT model's by this, beyond its 95 % interval."""
    max_leaks: Count = 0
    """Replies of the policy that hold personal data of the training records."""


class EvaluateConfig(StageConfig):
    """Base, SFT model and policy side by side on held-out data; writes the report."""

    stage: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 4
    scorers: dict[str, str] = Field(default={})
    """Further scorers by name: file.py:function, called with (prompts, completions); or a folder,
    folder:LABEL, classifier:LABEL, as in ppo.scorers."""
    num_prompts: PositiveInt = 200
    """Held-out prompts that each model answers."""
    max_completion_length: PositiveInt = 64
    """Longest reply, tokens."""
    temperature: Positive = 1.0
    """Sampling temperature of the replies."""
    max_held_out_records: PositiveInt = 500
    """Held-out documents and demonstrations used for the losses."""
    num_references: Count = 100
    """Held-out demonstrations whose prompts are answered and compared with the reply given there;
    0: none."""
    compare_champion: bool = True
    """Whether the registered champion answers the same prompts, where there is one."""
    judge: JudgeConfig = JudgeConfig()
    safety: SafetyConfig = SafetyConfig()
    gate: PolicyGate = PolicyGate()
    num_bootstrap_samples: PositiveInt = 2000
    """Resamples behind each 95 % interval."""
    num_samples_shown: Count = 20
    """Prompts whose replies stand side by side in the report, chosen by the seed."""
    seed: Count = 0
    """Seed of everything random in this stage; the pipeline sets it to its own."""
