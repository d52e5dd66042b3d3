"""How long records are against a context, by a tokenizer or, without one, by their characters."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import tokenizers

from stages.core.errors import UserError

CHARACTERS_A_TOKEN = 4
"""Of English prose with the usual vocabularies; of other languages fewer, so that an estimate is
too low there."""


class TooLong(NamedTuple):
    """Records of a batch that do not fit."""

    lines: list[int]
    """Longer than the context."""
    tokens: list[int]
    """Their lengths."""
    reply_cut: list[int]
    """Lines whose reply lies beyond the context altogether."""


class Lengths:
    """Lengths in tokens; without a tokenizer estimated."""

    def __init__(self, tokenizer: str = "") -> None:
        """``tokenizer``: a folder with ``tokenizer.json``, or that file; "" for none.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        self.tokenizer = _load(tokenizer) if tokenizer else None

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The tokenizer's own special tokens."""
        if self.tokenizer is None:
            return ()
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.special)

    def too_long(self, rows: pl.DataFrame, fields: Sequence[str], context: int) -> TooLong:
        """The rows of more than ``context`` tokens: the first field and the longest of the others.

        The tokens of a chat template are not counted.
        """
        asked, *replies = fields
        sizes = {name: pl.col(name).str.len_bytes() for name in fields}
        longest = pl.max_horizontal([sizes[name] for name in replies]) if replies else pl.lit(0)
        # A token is at least a byte, and by the estimate at least one.
        suspects = rows.filter(sizes[asked].cast(pl.Int64) + longest.cast(pl.Int64) > context)
        found = TooLong([], [], [])
        for line, *lengths in self._lengths(suspects, fields):
            whole = lengths[0] + max(lengths[1:], default=0)
            if whole > context:
                found.lines.append(line)
                found.tokens.append(whole)
                if replies and lengths[0] >= context:
                    found.reply_cut.append(line)
        return found

    def _lengths(self, rows: pl.DataFrame, fields: Sequence[str]) -> Iterator[tuple[int, ...]]:
        if self.tokenizer is None:
            estimate = [
                (pl.col(name).str.len_chars().cast(pl.Int64) + CHARACTERS_A_TOKEN - 1)
                // CHARACTERS_A_TOKEN
                for name in fields
            ]
            yield from rows.select("line", *estimate).iter_rows()
            return
        count = _counter(self.tokenizer)
        columns = [count(rows[name].to_list()) for name in fields]
        yield from zip(rows["line"].to_list(), *columns, strict=True)


def _counter(tokenizer: tokenizers.Tokenizer) -> Callable[[list[str]], list[int]]:
    def count(texts: list[str]) -> list[int]:
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [len(item.ids) for item in encoded]

    return count


def _load(place: str) -> tokenizers.Tokenizer:
    path = Path(place).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"--tokenizer {place}: no tokenizer.json there; give the folder of a tokenizer that "
            "transformers has saved"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the binding raises nothing narrower
        message = " ".join(str(error).split())[:200]
        raise UserError(f"--tokenizer {path}: cannot be read: {message}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
