"""Every knob of the pipeline: the configuration of each stage, and of a whole run.

All models are frozen and refuse unknown keys. The text under an attribute is its description in
Prefect's run form.
"""

from stages.core.config.base import (
    Compute,
    Frozen,
    StageConfig,
)
from stages.core.config.data import (
    CleanConfig,
    CollectConfig,
    DataSource,
    PersonalDataKind,
    QualityLimits,
)
from stages.core.config.evaluation import (
    BenchmarksConfig,
    EvaluateConfig,
    JudgeConfig,
    PolicyGate,
    RewardModelCardConfig,
    RewardModelGate,
    SafetyConfig,
    Suite,
)
from stages.core.config.feedback import (
    FeedbackSource,
    JudgePairsConfig,
    ModelName,
    ReviewQueueConfig,
    SamplePairsConfig,
)
from stages.core.config.models import (
    BaseModelConfig,
    ClassifierConfig,
    GuardModelConfig,
    LoRAConfig,
    PretrainConfig,
    RewardModelConfig,
    SFTConfig,
    TokenizerConfig,
    TrainingConfig,
)
from stages.core.config.pipeline import (
    ApprovalConfig,
    PipelineConfig,
)
from stages.core.config.ppo import (
    GuardConfig,
    PPOConfig,
)
from stages.core.config.sources import (
    HubSource,
    S3Source,
    Source,
    SQLSource,
    UrlSource,
)

__all__ = [
    "ApprovalConfig",
    "BaseModelConfig",
    "BenchmarksConfig",
    "ClassifierConfig",
    "CleanConfig",
    "CollectConfig",
    "Compute",
    "DataSource",
    "EvaluateConfig",
    "FeedbackSource",
    "Frozen",
    "GuardConfig",
    "GuardModelConfig",
    "HubSource",
    "JudgeConfig",
    "JudgePairsConfig",
    "LoRAConfig",
    "ModelName",
    "PPOConfig",
    "PersonalDataKind",
    "PipelineConfig",
    "PolicyGate",
    "PretrainConfig",
    "QualityLimits",
    "ReviewQueueConfig",
    "RewardModelCardConfig",
    "RewardModelConfig",
    "RewardModelGate",
    "S3Source",
    "SFTConfig",
    "SQLSource",
    "SafetyConfig",
    "SamplePairsConfig",
    "Source",
    "StageConfig",
    "Suite",
    "TokenizerConfig",
    "TrainingConfig",
    "UrlSource",
]
