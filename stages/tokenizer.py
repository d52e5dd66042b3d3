"""Train a byte-level BPE tokenizer with the special tokens and the template of ChatML.

``<|endoftext|>`` begins documents and pads; ``<|im_start|>`` opens a turn; ``<|im_end|>`` closes it
and ends a reply (EOS). There is no normaliser and every byte has a token, so that any text comes
back unchanged.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, TokenizerConfig
from stages.core.contracts import TokenizerInputs, TokenizerOutputs
from stages.core.errors import UserError
from stages.core.schemas import read_jsonl

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Llama 3's, but with single digits: a small model learns no arithmetic over 1,000 number tokens.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MEASURED_CHARACTERS = 5_000_000
PROGRESS_SECONDS = 1.0


def run(
    config: TokenizerConfig, inputs: TokenizerInputs, compute: Compute, out_dir: Path
) -> tuple[TokenizerOutputs, dict[str, float]]:
    """Learn the merges from ``train.jsonl`` of the documents and write the folder ``tokenizer``.

    Equal documents give equal files, byte for byte.

    Metrics: ``vocab_size`` in tokens; ``characters_per_token`` and ``bytes_per_token`` on held-out
    documents (on training documents where none are held out).

    Raises:
        UserError: there are no documents to learn from.
    """
    documents = inputs.documents.locate()
    train, held_out = documents / "train.jsonl", documents / "held_out.jsonl"
    if next(_texts(train), None) is None:
        raise UserError(f"{train}: holds no documents; give collect.documents.paths some text")
    tokenizer = train_tokenizer(_texts(train, _progress(train)), config)
    folder = out_dir / "tokenizer"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    measured = held_out if next(_texts(held_out), None) is not None else train
    metrics = {"vocab_size": float(tokenizer.get_vocab_size()), **_lengths(tokenizer, measured)}
    outputs = TokenizerOutputs(tokenizer=make_artifact("tokenizer", folder))
    return outputs, metrics


def train_tokenizer(texts: Iterator[str], config: TokenizerConfig) -> Tokenizer:
    """Byte-level BPE over ``texts``. Special tokens that are written out in them are learned from
    like any other text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(path: Path, progress: Callable[[int], None] = lambda characters: None) -> Iterator[str]:
    for row in read_jsonl(path):
        progress(len(row["text"]))
        yield row["text"]


def _progress(path: Path) -> Callable[[int], None]:
    """A function that adds up the characters read and reports them, at most once a second."""
    total = path.stat().st_size
    done = 0
    reported = time.monotonic()

    def report(characters: int) -> None:
        nonlocal done, reported
        done += characters
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            tracking.report_progress(done, total, unit="characters")

    return report


def _lengths(tokenizer: Tokenizer, path: Path) -> dict[str, float]:
    """How much text a token stands for, over the first documents of the file."""
    tokenizer.encode_special_tokens = True
    characters = bytes_ = tokens = 0
    for text in _texts(path):
        characters += len(text)
        bytes_ += len(text.encode())
        tokens += len(tokenizer.encode(text, add_special_tokens=False).ids)
        if characters > MEASURED_CHARACTERS:
            break
    return {"characters_per_token": characters / tokens, "bytes_per_token": bytes_ / tokens}
