"""What is collected, and how it is cleaned."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stages.core.config.base import Count, Frozen, Positive, PositiveInt, Share, StageConfig
from stages.core.config.feedback import FeedbackSource
from stages.core.config.sources import HubSource, S3Source, Source, SQLSource, UrlSource

PersonalDataKind = Literal[
    "email", "phone", "ip_address", "iban", "credit_card", "national_id", "secret"
]

KindName = Literal["documents", "sft", "preferences", "prompts", "labelled"]


class DataSource(Frozen):
    """Where one kind of data comes from. No paths and no other source: it is not used."""

    paths: tuple[str, ...] = ()
    """Files, globs or folders: JSONL, JSON, Parquet, CSV, TSV, text, Markdown, HTML, WARC; plain,
    .gz or .zst."""
    urls: tuple[UrlSource, ...] = ()
    """Files behind HTTP(S) addresses, fetched once and again when they change."""
    hub: tuple[HubSource, ...] = ()
    """Data sets of the Hugging Face Hub, each pinned to a commit."""
    sql: tuple[SQLSource, ...] = ()
    """Queries to databases, asked in each run."""
    s3: tuple[S3Source, ...] = ()
    """Objects of S3-compatible storages, fetched once and again when they change."""
    feedback: tuple[FeedbackSource, ...] = ()
    """People's judgments, from review queues in MLflow, read in each run: for preferences, sft and
    prompts."""
    held_out_paths: tuple[str, ...] = ()
    """The same for held-out data; none: a share of the training data is held out."""
    held_out_share: Share = 0.05
    """Share of the prompts (or documents) held out where no held-out paths are given."""
    group_column: str = ""
    """Records with the same value in this column of the files (a user, a dialogue, a site) stay in
    one split; empty: records with the same prompt do."""
    columns: dict[str, str] = Field(default={})
    """Our column name → the files' column name, where they differ (completion: response). Known
    formats, such as Alpaca, need none; with any given, none is recognised."""
    max_records: Count = 0
    """Take this many training records, chosen at random, and all judgments; 0 takes all."""
    max_held_out_records: Count = 0
    """The same for held-out records."""

    @property
    def remote(self) -> tuple[Source, ...]:
        """What has to be fetched before it can be read."""
        return (*self.urls, *self.hub, *self.sql, *self.s3, *self.feedback)

    @property
    def is_given(self) -> bool:
        """Whether there is training data of this kind."""
        return bool(self.paths or self.remote)


class CollectConfig(StageConfig):
    """Read the user's files into JSONL of one schema each; bad records go to rejects.jsonl."""

    stage: ClassVar[str] = "collect"
    version: ClassVar[int] = 3
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

    @model_validator(mode="after")
    def _check_feedback(self) -> Self:
        for kind in ("documents", "labelled"):
            if getattr(self, kind).feedback:
                raise ValueError(f"{kind}: judgments are no {kind}; give preferences.feedback")
        return self


class QualityLimits(Frozen):
    """Above or below which a document is removed as one not worth training on. Shares count its
    prose, without code, tables and formulas; the rules and the papers they come from are in
    stages/clean/quality.py and repetition.py."""

    min_characters: Count = 40
    """Shorter documents are removed."""
    max_symbol_share: Share = 0.4
    """Share of characters that are neither letters, digits nor spaces."""
    max_digit_share: Share = 0.3
    """Share of characters that are digits."""
    max_broken_character_share: Share = 0.02
    """Share of characters that were lost in a wrong encoding or that Unicode does not know."""
    max_character_run_share: Share = 0.2
    """Share of characters in runs of one letter, five times or more."""
    max_encoded_share: Share = 0.3
    """Share of characters in runs of 40 or more that look like base64 or hexadecimal numbers."""
    max_address_share: Share = 0.7
    """Share of characters in addresses (https://…)."""
    max_mean_word_length: Positive = 15.0
    """Characters of the mean word, in scripts that set spaces."""
    max_placeholder_share: Share = 0.2
    """Share of words that are those of lorem ipsum."""
    min_function_word_share: Share = 0.03
    """Share of words that join others (the, of, and), in languages of which we know them; from 20
    words on."""
    max_bullet_line_share: Share = 0.9
    """Share of lines that are items of a list."""
    max_ellipsis_line_share: Share = 0.3
    """Share of lines that end in an ellipsis."""
    max_short_line_share: Share = 0.8
    """Share of lines that are shorter than 30 bytes and end without punctuation."""
    max_repeated_line_share: Share = 0.4
    """Share of characters in lines that the document has had before."""
    max_top_ngram_share: Share = 0.35
    """Share of words that are repetitions of the commonest run of 2, 3 or 4 words."""
    max_repeated_ngram_share: Share = 0.5
    """Share of words in runs of 6 words that the document has had before."""


class CleanConfig(StageConfig):
    """Repair, filter, deduplicate and redact; removed records go to rejects.jsonl.zst."""

    stage: ClassVar[str] = "clean"
    version: ClassVar[int] = 4
    repair_text: bool = True
    """Mend mojibake, normalise Unicode to NFC, remove control characters."""
    remove_notices: bool = True
    """Take cookie notices, licence headers and such lines out of documents."""
    max_piece_characters: Count = 0
    """Longer documents are cut into pieces of at most so many characters, between paragraphs or
    sentences; 0 leaves them whole."""
    max_record_characters: PositiveInt = 1_000_000
    """Longer records are removed."""
    quality: QualityLimits = QualityLimits()
    """For documents alone."""
    languages: tuple[str, ...] = ()
    """Keep records in these languages alone (ISO 639-1: en, zh), and those of a few words or code,
    of which one cannot say it; none keeps all."""
    toxicity_scorer: str = ""
    """A classifier's folder (alone or with :LABEL) or file.py:function that scores text; documents
    and demonstrations above max_toxicity are removed. Empty: no scorer."""
    max_toxicity: float = 0.5
    """Score of the toxicity scorer above which a record is removed."""
    remove_duplicates: bool = True
    """Keep the first of equal records, and no training record that is also held out."""
    near_duplicate_similarity: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Of documents that share so much of their runs of five words (Jaccard) the first is kept, and
    no training document so close to a held-out one; 0 looks for none."""
    near_duplicate_prompt_similarity: Annotated[float, Field(ge=0, le=1)] = 0.98
    """The same for other records, of which the prompt and each reply, or the text and its label,
    must be so similar."""
    evaluation_sets: tuple[str, ...] = ()
    """Files or folders of evaluation data: training records that hold 13 words in a row of them are
    removed."""
    redact: tuple[PersonalDataKind, ...] = (
        "email",
        "phone",
        "ip_address",
        "iban",
        "credit_card",
        "national_id",
        "secret",
    )
    """Personal data replaced by a placeholder such as [EMAIL]."""
    guard_share: Share = 0.0
    """Share of the preferences' prompts whose pairs train the guard model alone, which judges what
    PPO did and is never optimised; 0: no guard model."""
    skip: dict[KindName, tuple[str, ...]] = Field(default={})
    """Rules not to apply to a kind of data, by the names in the report: {"documents": ["junk"]}."""
    dry_run: bool = False
    """Report what would be removed, and keep everything."""
    max_reject_share: Share = 0.5
    """Fail when a larger share of one kind's records is removed."""
    max_memory_gb: Positive = 2.0
    """Of the table for near duplicates (512 bytes a record); beyond it, it lies on disk."""
