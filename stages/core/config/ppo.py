"""PPO, and what guards it."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stages.core.config.base import Count, Frozen, Positive, PositiveInt, Share, StageConfig
from stages.core.config.models import LoRAConfig


class GuardConfig(Frozen):
    """Watches for a policy that games its reward: the KL, and the score of a scorer that is not
    optimised."""

    scorer: str = ""
    """Name in ppo.scorers of the scorer to watch; empty: only the KL is guarded."""
    action: Literal["warn", "raise_kl", "stop"] = "stop"
    """What follows an alarm. stop keeps the policy with the best watched score (the one in the
    middle of the best window of scorings), or the last one below the KL ceiling; raise_kl doubles
    the KL coefficient, and again every window updates while the KL stays above its ceiling,
    every window scorings while the watched score stays down."""
    updates: PositiveInt = 1
    """Updates between scorings by the watched scorer; the policy at the end is scored as well."""
    window: PositiveInt = 5
    """Scorings that are averaged before they are compared."""
    tolerance: Positive = 3.0
    """Alarm when the watched score has fallen from its best by this many standard errors more than
    the best of as many scorings owes to luck, while the optimised score has not fallen."""
    kl_ceiling: Positive = 30.0
    """Alarm when the mean KL of a reply to the reference exceeds this, nats."""


class PPOConfig(StageConfig):
    """Proximal policy optimisation against the reward model, with a KL penalty to the SFT model.

    Names of knobs and metrics follow TRL."""

    stage: ClassVar[str] = "ppo"
    version: ClassVar[int] = 4
    algorithm: Literal["ppo", "rloo", "grpo", "dpo"] = "ppo"
    """PPO is our own; RLOO, GRPO and DPO are TRL's trainers, DPO on the preference pairs."""
    finetuning: Literal["lora", "full"] = "lora"
    """lora: policy and value model are adapters on one backbone; full: all weights of two models.
    PPO only, the others train an adapter."""
    lora: LoRAConfig = LoRAConfig()
    """The policy's adapter; a value model that starts at zero has one of the same size."""
    frozen_layer_share: Share = 0.5
    """Share of the layers, from the bottom, that the adapters leave as they are. Their hidden
    states are computed once a rollout instead of once an epoch and model."""
    value_init: Literal["reward_model", "zero"] = "reward_model"
    """The value model starts as a copy of the reward model, or as the SFT model with a zero
    head."""
    scorers: dict[str, str] = Field(default={})
    """Further scorers by name: file.py:function; the folder of a reward model, ours or a sequence
    classifier with one output; folder:LABEL or folder:-LABEL, the log-odds that a classifier gives
    a label or their negative; classifier:LABEL, the same of the chain's own classifier."""
    scorer_weights: dict[str, float] = Field(default={"reward_model": 1.0})
    """Weights of the score that is optimised, by name; reward_model is the chain's own. Scorers
    without a weight are only watched."""
    total_episodes: PositiveInt = 4096
    """Replies sampled and learned from, in all."""
    batch_size: PositiveInt = 64
    """Replies per update (rollout), over all ranks."""
    num_mini_batches: PositiveInt = 4
    """Optimizer steps per epoch: each sees batch_size / num_mini_batches replies."""
    num_ppo_epochs: PositiveInt = 2
    """Passes over each rollout."""
    num_generations: Annotated[int, Field(ge=2)] = 4
    """Replies to each prompt, RLOO and GRPO only."""
    dpo_beta: Positive = 0.1
    """Strength of DPO's pull towards the SFT model (Rafailov et al. 2023, equation 7)."""
    max_prompt_length: PositiveInt = 256
    """Longer prompts are dropped and counted, tokens."""
    max_over_length_share: Share = 0.5
    """Fail when a larger share of the prompts is over-long."""
    max_completion_length: PositiveInt = 64
    """Longest reply, tokens."""
    temperature: Positive = 1.0
    """Sampling temperature; all log-probabilities are taken at it."""
    learning_rate: Positive = 3e-4
    """AdamW learning rate of the policy."""
    value_learning_rate: Positive = 1e-3
    """AdamW learning rate of the value model and its head."""
    adam_epsilon: Positive = 1e-5
    """Epsilon of AdamW (Huang et al. 2022, detail 3)."""
    warmup_share: Share = 0.05
    """Share of the updates over which the learning rates rise; then they fall linearly."""
    value_warmup_updates: Count = 0
    """Updates at the start in which only the value model learns."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    kl_coef: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the per-token KL penalty to the reference inside the reward."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the per-token KL inside the reward (Schulman 2020)."""
    kl_target: Annotated[float, Field(ge=0)] = 0.0
    """KL of a reply, nats, that an adaptive kl_coef aims at; 0 keeps kl_coef fixed."""
    kl_horizon: PositiveInt = 10_000
    """Episodes over which the adaptive kl_coef moves (Ziegler et al. 2019, section 2.2)."""
    reset_reference_updates: Count = 0
    """The reference becomes the present policy after every so many updates; 0: never."""
    cliprange: Positive = 0.2
    """Clip range of the policy ratio."""
    cliprange_value: Positive = 0.2
    """Clip range of the value prediction."""
    vf_coef: Positive = 0.1
    """Weight of the value loss. The value model shares no trained weights with the policy and Adam
    takes no notice of a loss's scale, so this moves little more than where max_grad_norm clips: to
    have it learn faster or slower, set value_learning_rate."""
    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus; 0: none."""
    max_approx_kl: Annotated[float, Field(ge=0)] = 0.0
    """The epochs over a rollout end when a mini-batch's policy is further than this from the one
    that sampled, nats a token; 0: never."""
    gamma: Share = 1.0
    """Discount factor."""
    lam: Share = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_rewards: bool = False
    """Scale the per-token rewards to unit variance."""
    whiten_advantages: bool = True
    """Normalise the advantages over the valid tokens of the rollout."""
    normalize_scores: bool = True
    """Subtract a reward model's mean score on SFT samples and divide by its deviation. Functions
    and classifiers have no such statistics: their scores are taken as they are."""
    clip_score: Positive = 5.0
    """Scores are clipped to ± this after normalisation."""
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    """Subtracted from the score of a reply that did not end within max_completion_length."""
    guard: GuardConfig = GuardConfig()
    sample_updates: PositiveInt = 10
    """Updates between tables of samples."""
    save_updates: PositiveInt = 10
    """Updates between checkpoints."""
    seed: Count = 0
    """Seed of everything random in this stage; the pipeline sets it to its own."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be divisible by num_mini_batches "
                f"({self.num_mini_batches})"
            )
        if self.total_episodes < self.batch_size:
            raise ValueError(
                f"total_episodes ({self.total_episodes}) must be at least batch_size "
                f"({self.batch_size})"
            )
        if self.total_episodes // self.batch_size <= self.value_warmup_updates:
            raise ValueError(
                f"value_warmup_updates ({self.value_warmup_updates}) leaves the policy none of the "
                f"{self.total_episodes // self.batch_size} updates (total_episodes / batch_size)"
            )
        known = {"reward_model", *self.scorers}
        if unknown := [name for name in self.scorer_weights if name not in known]:
            raise ValueError(f"scorer_weights names {unknown[0]!r}, which is not in scorers")
        if "reward_model" in self.scorers:
            raise ValueError("scorers: 'reward_model' is the name of the chain's own")
        if not any(self.scorer_weights.values()):
            raise ValueError("scorer_weights: at least one must not be 0")
        if self.guard.scorer and self.guard.scorer not in self.scorers:
            raise ValueError(f"guard.scorer {self.guard.scorer!r} is not in scorers")
        if self.guard.action == "raise_kl" and not self.kl_coef:
            raise ValueError("guard.action raise_kl doubles kl_coef, which is 0")
        if self.scorer_weights.get(self.guard.scorer):
            raise ValueError(
                f"guard.scorer {self.guard.scorer!r} has a weight: what is optimised cannot guard"
            )
        return self
