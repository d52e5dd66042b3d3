"""The models that are trained with labels: base model, SFT model, reward models, classifier."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stages.core.config.base import Count, Frozen, Positive, PositiveInt, Share, StageConfig


class BaseModelConfig(StageConfig):
    """Bring a model instead of pretraining one."""

    stage: ClassVar[str] = "base_model"
    source: str = ""
    """Hub name, local folder or .gguf file; empty: train a tokenizer and pretrain from scratch."""
    revision: str = ""
    """Commit of the hub repository; required for a hub name."""


class TokenizerConfig(StageConfig):
    """Byte-level BPE with the chat special tokens; skipped when a model brings its own."""

    stage: ClassVar[str] = "tokenizer"
    vocab_size: Annotated[int, Field(ge=300)] = 32_000
    """Upper limit of the vocabulary, the 256 bytes and the special tokens included."""
    min_frequency: PositiveInt = 2
    """Merge only pairs seen this often."""


class TrainingConfig(StageConfig):
    """What the supervised training stages have in common."""

    learning_rate: Positive
    """Peak learning rate of AdamW."""
    warmup_share: Share = 0.05
    """Share of the steps over which the learning rate rises linearly; then it falls as a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    global_batch_size: PositiveInt
    """Sequences in one optimizer step, over all ranks and micro batches."""
    num_epochs: Positive = 1.0
    """Passes over the training data."""
    eval_steps: PositiveInt = 100
    """Optimizer steps between evaluations on held-out data."""
    save_steps: PositiveInt = 100
    """Optimizer steps between checkpoints; a multiple of eval_steps for early stopping."""
    seed: Count = 0
    """Seed of everything random in this stage; the pipeline sets it to its own."""


class PretrainConfig(TrainingConfig):
    """Causal language modelling on packed documents, from scratch or from a given model."""

    stage: ClassVar[str] = "pretrain"
    enabled: bool = True
    """With a given base model: whether to continue pretraining it on the documents."""
    model_type: str = "llama"
    """Architecture of a model from scratch: any model type of transformers' AutoConfig."""
    model_overrides: dict[str, int | float | bool | str] = Field(
        default={
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
        }
    )
    """Fields of the architecture's configuration class."""
    sequence_length: PositiveInt = 256
    """Tokens of one packed training sequence."""
    learning_rate: Positive = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of AdamW."""
    global_batch_size: PositiveInt = 32
    """Packed sequences in one optimizer step, over all ranks and micro batches."""
    max_steps: Count = 0
    """Optimizer steps; 0 follows num_epochs."""
    num_samples: Count = 4
    """Texts sampled at each evaluation."""


class LoRAConfig(Frozen):
    """Low-rank adapters (LoRA, section 4.1) on all linear layers of the backbone."""

    rank: PositiveInt = 16
    """Rank of the update of each weight matrix."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / rank."""
    dropout: Share = 0.0
    """Dropout on the adapters' input, supervised stages only."""


class SFTConfig(TrainingConfig):
    """Supervised fine-tuning on demonstrations; the loss is on the completions only."""

    stage: ClassVar[str] = "sft"
    lora: LoRAConfig = LoRAConfig()
    """The adapter that is trained."""
    learning_rate: Positive = 2e-4
    """Peak learning rate of AdamW."""
    global_batch_size: PositiveInt = 32
    """Demonstrations in one optimizer step, over all ranks and micro batches."""
    max_length: PositiveInt = 512
    """Longest record in tokens, prompt and completion together."""
    over_length: Literal["drop", "truncate"] = "drop"
    """What happens to longer records; truncated ones lose their end and never teach EOS."""
    max_over_length_share: Share = 0.1
    """Fail when a larger share of the records is over-long."""
    early_stopping_patience: Count = 3
    """Stop after this many evaluations without a better held-out loss; 0 never stops early."""


class RewardModelConfig(TrainingConfig):
    """Bradley–Terry reward model: LoRA adapter and score head on the merged SFT model."""

    stage: ClassVar[str] = "reward_model"
    version: ClassVar[int] = 2
    seed_offset: ClassVar[int] = 0
    """Added to the seed."""
    lora: LoRAConfig = LoRAConfig()
    """The adapter that is trained, the score head beside it."""
    learning_rate: Positive = 5e-4
    """Peak learning rate of AdamW."""
    global_batch_size: PositiveInt = 32
    """Pairs in one optimizer step, over all ranks and micro batches."""
    max_length: PositiveInt = 512
    """Longest prompt and reply in tokens; pairs with a longer side are dropped and counted."""
    max_over_length_share: Share = 0.1
    """Fail when a larger share of the pairs is over-long."""
    use_margin: bool = False
    """Subtract the column margin from the score difference in the loss (Llama 2, section 3.2.2)."""
    center_rewards_coefficient: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the squared sum of both scores, which keeps scores near zero (Eisenstein et al.
    2023, section 2)."""
    num_statistics_samples: PositiveInt = 256
    """Replies of the SFT model over which the score's mean and standard deviation are taken."""
    max_completion_length: PositiveInt = 64
    """Longest of those replies, in tokens."""


class GuardModelConfig(RewardModelConfig):
    """A second reward model, from another seed and from pairs that the first never sees. It judges
    the policy and is never optimised. Needs clean.guard_share."""

    stage: ClassVar[str] = "guard_model"
    module: ClassVar[str] = "reward_model"
    seed_offset: ClassVar[int] = 1_000_000


class ClassifierConfig(TrainingConfig):
    """Fine-tunes a sequence classifier on labelled text, such as a detector of toxic replies.
    Needs collect.labelled."""

    stage: ClassVar[str] = "classifier"
    source: str = ""
    """Hub name or local folder of the model to start from, an encoder or a language model; empty:
    the chain's base model."""
    revision: str = ""
    """Commit of the hub repository; required for a hub name."""
    learning_rate: Positive = 1e-4
    """Peak learning rate of AdamW; all weights are trained."""
    global_batch_size: PositiveInt = 32
    """Texts in one optimizer step, over all ranks and micro batches."""
    num_epochs: Positive = 3.0
    """Passes over the training data."""
    max_length: PositiveInt = 256
    """Longer texts are cut, tokens; how many is said."""
    early_stopping_patience: Count = 3
    """Stop after this many evaluations without a better held-out loss; 0 never stops early."""
