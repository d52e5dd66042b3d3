"""The prose of texts: what is left of them without code, tables and formulas.

The rules of quality and repetition count in prose alone, since code repeats itself, tables are full
of symbols, and both are worth training on.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.clean.repair import replaced

MAX_INDENTED_SHARE = 0.5
"""Of a text's lines; where more are indented, that is how it is set, as in a manual page."""

# A line of more tildes is what underlines a heading in reStructuredText, or a row of signs.
FENCE = r"^\s*(?:```|~~~[^~]|~~~$)"
INDENTED = r"^(?: {4}|\t)"
TABLE = r"^\s*(?:\|.*[\p{L}\p{N}].*\||\|?[-: ]*-[-: ]*\|[-|: ]*$|\+[-=+]{3,})"
CONSOLE = r"^\s*(?:\.\.\.|\$) "
PROMPT = r"^\s*>>> "
FORMULAS = r"^\s*\$\$"
ENVIRONMENT = (
    r"\{(?:equation|align|gather|multline|eqnarray|array|tabular|table|matrix|cases|verbatim"
    r"|lstlisting|minted|tikzpicture|algorithm)"
)
ADDRESS = r"\b(?:https?|ftp)://[^\s<>\"]+"
TAG = r"</?[A-Za-z][A-Za-z0-9]*(?:\s[^<>\n]*)?/?>"
# Formulas without white space beside the signs, so that prices are none.
IN_LINE = rf"`[^`\n]{{1,80}}`|\$\$?[^\s$](?:[^$\n]{{0,80}}[^\s$])?\$\$?|{ADDRESS}|{TAG}"
HINT = rf"(?m){INDENTED}|{FENCE}|{TABLE}|{CONSOLE}|{PROMPT}|[`$]|://|</|\\begin\{{"


def prose(texts: pl.Series) -> pl.Series:
    """The texts without code, tables, formulas in dollar signs, tags and addresses."""
    suspect = texts.str.contains(HINT)
    if not suspect.any():
        return texts
    return replaced(texts, suspect, _prose(texts.filter(suspect)))


def _prose(texts: pl.Series) -> pl.Series:
    split = texts.str.split("\n")
    sizes = split.list.len().to_numpy().astype(np.int64)
    firsts = np.cumsum(sizes) - sizes
    lines = split.explode()
    is_other = _between(lines.str.contains(FENCE), firsts, sizes)
    opens = lines.str.contains(FORMULAS) & (lines.str.count_matches("$$", literal=True) % 2 == 1)
    is_other |= _between(opens, firsts, sizes)
    is_other |= _in_environment(lines, firsts, sizes)
    is_other |= _not_alone(lines.str.contains(TABLE).to_numpy(), firsts)
    is_other |= lines.str.contains(CONSOLE).to_numpy()
    is_other |= _doctests(lines, firsts)
    is_other |= _indented_code(lines, firsts, sizes)
    table = pl.DataFrame({"text": np.repeat(np.arange(len(texts)), sizes), "line": lines})
    joined = (
        table.filter(pl.Series(~is_other))
        .group_by("text", maintain_order=True)
        .agg(pl.col("line").str.join("\n").str.replace_all(IN_LINE, " "))
    )
    left = np.zeros(len(texts), np.bool_)
    left[joined["text"].to_numpy()] = True
    empty = pl.repeat("", len(texts), dtype=pl.String, eager=True)
    return replaced(empty, pl.Series(left), joined["line"])


def _between(
    borders: pl.Series, firsts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each line is a border or lies between two; a last one without its other is none."""
    is_border = borders.to_numpy().copy()
    if not is_border.any():
        return is_border
    counts = _counts(is_border, firsts, sizes)
    totals = np.repeat(counts[firsts + sizes - 1], sizes)
    is_border &= (counts < totals) | (totals % 2 == 0)
    return ((counts % 2 == 1) & (counts < totals)) | is_border


def _in_environment(
    lines: pl.Series, firsts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each line lies in an environment of LaTeX that holds no prose, or borders one."""
    begins = lines.str.contains(r"\\begin" + ENVIRONMENT).to_numpy()
    if not begins.any():
        return np.zeros(len(begins), np.bool_)
    ends = lines.str.contains(r"\\end" + ENVIRONMENT).to_numpy()
    depth = _counts(begins, firsts, sizes) - _counts(ends, firsts, sizes)
    return (depth > 0) | begins | ends


def _counts(
    marks: NDArray[np.bool_], firsts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many lines of the same text are marked up to each, itself included."""
    counts = np.cumsum(marks)
    return counts - np.repeat(counts[firsts] - marks[firsts], sizes)


def _doctests(lines: pl.Series, firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """What Python was asked and what it answered: from a prompt to the next blank line."""
    is_prompt = lines.str.contains(PROMPT).to_numpy()
    if not is_prompt.any():
        return is_prompt
    is_stop = ~lines.str.contains(r"\S").to_numpy()
    is_stop[firsts] = True
    places = np.arange(len(lines))
    last_prompt = np.maximum.accumulate(np.where(is_prompt, places, -1))
    return last_prompt >= np.maximum.accumulate(np.where(is_stop, places, -1))


def _not_alone(marks: NDArray[np.bool_], firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Marked lines with a marked neighbour in the same text."""
    with_last = marks.copy()
    with_last[1:] &= marks[:-1]
    with_last[firsts] = False
    result = with_last.copy()
    result[:-1] |= with_last[1:]
    return result


def _indented_code(
    lines: pl.Series, firsts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    is_indented = lines.str.contains(INDENTED).to_numpy()
    if not is_indented.any():
        return is_indented
    is_filled = lines.str.contains(r"\S").to_numpy()
    indented = np.add.reduceat(is_indented & is_filled, firsts, dtype=np.int64)
    filled = np.add.reduceat(is_filled, firsts, dtype=np.int64)
    return is_indented & np.repeat(indented <= MAX_INDENTED_SHARE * filled, sizes)
