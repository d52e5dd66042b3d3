"""One run of the whole chain."""

from typing import Any, Literal

from pydantic import BaseModel, model_validator

from stages.core.config.base import Compute, Count, Frozen, Positive
from stages.core.config.data import CleanConfig, CollectConfig
from stages.core.config.evaluation import BenchmarksConfig, EvaluateConfig, RewardModelCardConfig
from stages.core.config.models import (
    BaseModelConfig,
    ClassifierConfig,
    GuardModelConfig,
    PretrainConfig,
    RewardModelConfig,
    SFTConfig,
    TokenizerConfig,
)
from stages.core.config.ppo import PPOConfig


class ApprovalConfig(Frozen):
    """Where a run stops and asks a person. It is suspended meanwhile: no process, no GPU memory."""

    before_ppo: Literal["off", "ask"] = "off"
    """ask: show the reward model's figures and wait for a yes before PPO begins."""
    promotion: Literal["off", "ask", "auto"] = "off"
    """What follows the evaluation. off: the policy stays challenger; ask: a person decides whether
    it becomes champion; auto: it does, for schedules that nobody watches."""
    timeout_hours: Positive = 72.0
    """A question that nobody answers ends the run after this time, hours."""


class PipelineConfig(Frozen):
    """One run of the whole chain."""

    profile: str = "custom"
    """Name of the run's MLflow experiment."""
    seed: Count = 0
    """Seed of every stage that draws at random."""
    compute: Compute = Compute()
    collect: CollectConfig = CollectConfig()
    clean: CleanConfig = CleanConfig()
    base_model: BaseModelConfig = BaseModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pretrain: PretrainConfig = PretrainConfig()
    sft: SFTConfig = SFTConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    guard_model: GuardModelConfig = GuardModelConfig()
    reward_model_card: RewardModelCardConfig = RewardModelCardConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    ppo: PPOConfig = PPOConfig()
    benchmarks: BenchmarksConfig = BenchmarksConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    approval: ApprovalConfig = ApprovalConfig()

    @model_validator(mode="before")
    @classmethod
    def _share_seed(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        seed = data.get("seed", 0)
        seeded: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            section = data.get(name, {})
            if isinstance(section, BaseModel):
                section = section.model_dump()
            if "seed" in getattr(field.annotation, "model_fields", {}) and isinstance(
                section, dict
            ):
                seeded[name] = section | {"seed": seed}
        return data | seeded
