"""Every knob of the pipeline on one page: the configuration of each stage.

All models are frozen and refuse unknown keys. The text under an attribute is its description in
Prefect's run form.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.core.form import complete_schema, field_title, section_title

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        model_title_generator=section_title,
        field_title_generator=field_title,
        json_schema_extra=complete_schema,
    )


class StageConfig(Frozen):
    """Base of the stage configurations. ``version`` is bumped when a stage's behaviour changes, so
    that results of the old behaviour are not reused."""

    stage: ClassVar[str] = ""
    module: ClassVar[str] = ""
    """Module below ``stages`` where it differs from the stage's name."""
    version: ClassVar[int] = 1


class Compute(Frozen):
    """Where a stage runs. Recorded beside the result, but not part of its key: the global batch is
    fixed by the stage's configuration and the accumulation follows from the micro batch."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training stages; auto takes a GPU when there is one."""
    num_processes: PositiveInt = 1
    """Ranks of a training stage; more than 1 needs as many GPUs."""
    micro_batch_size: PositiveInt = 16
    """Sequences that go through a model at once; lower it when memory runs out."""
    num_threads: Count = 0
    """CPU threads of a stage; 0 takes all cores."""


# ------------------------------------------------------------------------------------------- data


class DataSource(Frozen):
    """Where one kind of data comes from. No paths: this kind of data is not used."""

    paths: tuple[str, ...] = ()
    """Files, globs or folders: JSONL, Parquet, CSV, TSV, text, Markdown; plain, .gz or .zst."""
    held_out_paths: tuple[str, ...] = ()
    """The same for held-out data; none: a share of the training data is held out."""
    held_out_share: Share = 0.05
    """Share of the prompts (or documents) held out where no held-out paths are given."""
    columns: dict[str, str] = {}
    """Our column name → the files' column name, where they differ (completion: response)."""
    max_records: Count = 0
    """Take this many training records, chosen at random; 0 takes all."""
    max_held_out_records: Count = 0
    """The same for held-out records."""


class CollectConfig(StageConfig):
    """Read the user's files into JSONL of one schema each; bad records go to rejects.jsonl."""

    stage: ClassVar[str] = "collect"
    documents: DataSource = DataSource()
    """Text to pretrain on: column text."""
    sft: DataSource = DataSource()
    """Demonstrations: columns prompt and completion, or messages."""
    preferences: DataSource = DataSource()
    """Pairs: columns prompt, chosen, rejected; or chosen and rejected as whole dialogues."""
    prompts: DataSource = DataSource()
    """Prompts for PPO and for the evaluation: column prompt."""
    labelled: DataSource = DataSource()
    """Text that the classifier learns from: columns text and label."""
    max_reject_share: Share = 0.05
    """Fail when a larger share of one kind's records is unusable."""


class CleanConfig(StageConfig):
    """Repair, filter, deduplicate and redact; removed records go to rejects.jsonl."""

    stage: ClassVar[str] = "clean"
    version: ClassVar[int] = 2
    repair_text: bool = True
    """Mend mojibake and normalise Unicode to NFC."""
    remove_duplicates: bool = True
    """Keep the first of equal records, and no training record that is also held out."""
    guard_share: Share = 0.0
    """Share of the preferences' prompts whose pairs train the guard model alone, which judges what
    PPO did and is never optimised; 0: no guard model."""
    min_document_characters: Count = 40
    """Shorter documents are removed."""
    max_record_characters: PositiveInt = 1_000_000
    """Longer records are removed."""
    max_symbol_share: Share = 0.4
    """Documents with a larger share of characters that are neither letters, digits nor spaces are
    removed as junk."""
    redact: tuple[Literal["email", "phone", "ip_address", "credit_card"], ...] = (
        "email",
        "phone",
        "ip_address",
        "credit_card",
    )
    """Personal data replaced by a placeholder such as [EMAIL]."""
    max_reject_share: Share = 0.5
    """Fail when a larger share of one kind's records is removed."""


# ----------------------------------------------------------------------------------------- models


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
    model_overrides: dict[str, int | float | bool | str] = {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
    }
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


class GuardConfig(Frozen):
    """Watches for a policy that games its reward: the KL, and the score of a scorer that is not
    optimised."""

    scorer: str = ""
    """Name in ppo.scorers of the scorer to watch; empty: only the KL is guarded."""
    action: Literal["warn", "raise_kl", "stop"] = "stop"
    """What follows an alarm. stop keeps the policy with the best watched score, or the last one
    below the KL ceiling; raise_kl doubles the KL coefficient, and again every window updates while
    the KL stays above its ceiling."""
    updates: PositiveInt = 1
    """Updates between scorings by the watched scorer."""
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
    version: ClassVar[int] = 3
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
    scorers: dict[str, str] = {}
    """Further scorers by name: file.py:function; the folder of a reward model, ours or a sequence
    classifier with one output; folder:LABEL or folder:-LABEL, the log-odds that a classifier gives
    a label or their negative; classifier:LABEL, the same of the chain's own classifier."""
    scorer_weights: dict[str, float] = {"reward_model": 1.0}
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
    """Weight of the value loss."""
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
    version: ClassVar[int] = 3
    scorers: dict[str, str] = {}
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


# --------------------------------------------------------------------------------------- pipeline


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
