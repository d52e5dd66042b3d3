"""What each stage receives and returns, beside its configuration: artifacts, never bare paths."""

from pydantic import Field

from stages.core.artifacts import Artifact
from stages.core.config import Frozen

RESERVED_FILE = "reserved.jsonl"
"""In collect's folder of a kind of data, for cleaning, which may make more prompts equal: the
prompts of the random share, which no training record may have."""


class CollectInputs(Frozen):
    """The user's files by data kind, expanded from the configured paths."""

    documents: tuple[Artifact, ...] = ()
    documents_held_out: tuple[Artifact, ...] = ()
    sft: tuple[Artifact, ...] = ()
    sft_held_out: tuple[Artifact, ...] = ()
    preferences: tuple[Artifact, ...] = ()
    preferences_held_out: tuple[Artifact, ...] = ()
    prompts: tuple[Artifact, ...] = ()
    prompts_held_out: tuple[Artifact, ...] = ()
    labelled: tuple[Artifact, ...] = ()
    labelled_held_out: tuple[Artifact, ...] = ()
    reserved: tuple[Artifact, ...] = ()
    """Prompts of people's random share: no training record may have one."""


class Datasets(Frozen):
    """One folder for each kind of data, holding train.jsonl and held_out.jsonl; collected beside
    people's judgments also reserved.jsonl, prompts that no training record may have."""

    documents: Artifact | None = None
    sft: Artifact | None = None
    preferences: Artifact | None = None
    prompts: Artifact | None = None
    labelled: Artifact | None = None
    guard_preferences: Artifact | None = None
    """The pairs set aside for the guard model; held_out.jsonl is the reward model's."""
    personal_data: Artifact | None = None
    """A text file of digests, one a line, of the personal data found in the training records."""


class CleanInputs(Frozen):
    """What collect returned, the evaluation data to keep out of training, and what the toxicity
    scorer is made of."""

    datasets: Datasets
    evaluation: tuple[Artifact, ...] = ()
    toxicity_scorer: Artifact | None = None


class BaseModelInputs(Frozen):
    """The local folder or GGUF file, where the source is one."""

    source: Artifact | None = None


class ModelOutputs(Frozen):
    """A model folder in transformers' format, tokenizer included."""

    model: Artifact


class TokenizerInputs(Frozen):
    """The documents to learn the merges from."""

    documents: Artifact


class TokenizerOutputs(Frozen):
    """A tokenizer folder in transformers' format."""

    tokenizer: Artifact


class PretrainInputs(Frozen):
    """Documents and either a tokenizer (from scratch) or a model (continued)."""

    documents: Artifact
    tokenizer: Artifact | None = None
    model: Artifact | None = None


class SFTInputs(Frozen):
    """The base model and the demonstrations."""

    model: Artifact
    sft: Artifact


class SFTOutputs(Frozen):
    """The LoRA adapter, and the model with the adapter merged into it."""

    adapter: Artifact
    model: Artifact


class RewardModelInputs(Frozen):
    """The merged SFT model, the pairs, and prompts for the score statistics."""

    model: Artifact
    preferences: Artifact
    prompts: Artifact


class RewardModelOutputs(Frozen):
    """Adapter, score head, statistics and probes in one folder."""

    reward_model: Artifact


class GuardModelInputs(RewardModelInputs):
    """The same, with the pairs set aside for the guard model."""


class RewardModelCardInputs(Frozen):
    """The reward model on its SFT model, the held-out pairs, the guard model where there is one,
    and the reward model to compare with: the champion's."""

    model: Artifact
    reward_model: Artifact
    preferences: Artifact
    guard_model: Artifact | None = None
    # Left out where there is none, so that the keys of results without one stay as they were.
    previous: Artifact | None = Field(default=None, exclude_if=lambda value: value is None)


class RewardModelCardOutputs(Frozen):
    """A folder with card.json (figures and tables), card.md and plots/*.png."""

    card: Artifact


class ClassifierInputs(Frozen):
    """The labelled text, and the model to start from unless it comes from the Hub."""

    labelled: Artifact
    model: Artifact | None = None


class ClassifierOutputs(Frozen):
    """A sequence classifier with its tokenizer, in transformers' format."""

    classifier: Artifact


class PPOInputs(Frozen):
    """The merged SFT model (policy start and reference), the reward model, the prompts, the
    preference pairs (DPO), and what the further scorers are made of."""

    model: Artifact
    reward_model: Artifact
    prompts: Artifact
    preferences: Artifact | None = None
    scorers: dict[str, Artifact] = Field(default={})


class PPOOutputs(Frozen):
    """The policy: its adapter on the SFT model (none where all weights were trained), and the whole
    model."""

    adapter: Artifact | None = None
    model: Artifact
    history: Artifact
    """JSONL, one line an update: episodes, score, KL, reply length, share ending in EOS."""


class BenchmarksInputs(Frozen):
    """The models by name, an adapter's on its base; the benchmarks' local data; text files."""

    models: dict[str, Artifact]
    bases: dict[str, Artifact] = Field(default={})
    """Of the models that are adapters: what they are adapters on."""
    folder: Artifact | None = None
    texts: tuple[Artifact, ...] = ()


class BenchmarksOutputs(Frozen):
    """A folder with benchmarks.json and the harness's answers."""

    benchmarks: Artifact


class EvaluateInputs(Frozen):
    """The three models and the champion, what judges them, the held-out data, the scorers' source
    files, and what earlier stages measured."""

    base: Artifact
    sft: Artifact
    policy: Artifact
    reward_model: Artifact
    datasets: Datasets
    history: Artifact
    champion: Artifact | None = None
    guard_model: Artifact | None = None
    classifier: Artifact | None = None
    reward_model_card: Artifact | None = None
    benchmarks: Artifact | None = None
    toxicity_prompts: tuple[Artifact, ...] = ()
    refusal_prompts: tuple[Artifact, ...] = ()
    scorers: dict[str, Artifact] = Field(default={})


class EvaluateOutputs(Frozen):
    """report.md, report.html, the plots and the tables behind them."""

    report: Artifact


class SamplePairsInputs(Frozen):
    """The models by name, the prompts (JSON Lines, one file or several), the reward models with the
    model that they are adapters on, pairs that were asked about before, and gold pairs."""

    models: dict[str, Artifact]
    prompts: tuple[Artifact, ...]
    base: Artifact | None = None
    """The merged SFT model, where there is a reward model."""
    reward_model: Artifact | None = None
    guard_model: Artifact | None = None
    known_pairs: Artifact | None = None
    """A text file of pair ids, one a line."""
    gold: tuple[Artifact, ...] = ()
    """Preferences whose answer is beyond doubt."""


class SamplePairsOutputs(Frozen):
    """A folder with pairs.jsonl (``stages.core.feedback.pairs``), report.md and plots."""

    pairs: Artifact


class JudgePairsInputs(Frozen):
    """Folders or files of pairs (``stages.core.feedback.pairs``)."""

    pairs: tuple[Artifact, ...]


class JudgePairsOutputs(Frozen):
    """JSON Lines: pair_id, verdict, reason, and answers: the judge's words in both orders. A pair
    that got no verdict has no line."""

    judgments: Artifact
