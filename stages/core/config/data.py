"""What is collected, and how it is cleaned."""

from typing import ClassVar, Literal

from pydantic import Field

from stages.core.config.base import Count, Frozen, PositiveInt, Share, StageConfig


class DataSource(Frozen):
    """Where one kind of data comes from. No paths: this kind of data is not used."""

    paths: tuple[str, ...] = ()
    """Files, globs or folders: JSONL, Parquet, CSV, TSV, text, Markdown; plain, .gz or .zst."""
    held_out_paths: tuple[str, ...] = ()
    """The same for held-out data; none: a share of the training data is held out."""
    held_out_share: Share = 0.05
    """Share of the prompts (or documents) held out where no held-out paths are given."""
    columns: dict[str, str] = Field(default={})
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
