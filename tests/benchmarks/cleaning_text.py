"""The text that the benchmark's corpus is made of, and what tells two texts apart.

Three pools: prose (novels, Wikipedia, stories of ``../shared/data/pretrain``), technical text
(manual pages, documentation and docstrings of this machine) and manual pages in other languages.
What says again what an earlier document says is left out, so that all near duplicates of the corpus
are those put into it.
"""

import ast
import gzip
import re
import statistics
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

MIN_CHARACTERS, MAX_CHARACTERS = 200, 8000
MEDIAN_CHARACTERS = 1800
MAX_SEEN_SHARE = 0.25
"""Of a document's runs of five words; more, and it counts as a copy of earlier ones."""
GRAM = 5
MAX_SOURCE_CHARACTERS = 400_000
"""Of one package's documentation."""
MAX_TECHNICAL_CHARACTERS = 12_000_000
LANGUAGES = ("zh_CN", "zh_TW", "ja", "ko", "ru", "de", "fr", "pl", "pt_BR", "es", "it", "nl", "sv")
NON_LATIN = ("zh_CN", "zh_TW", "ja", "ko", "ru")

CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")
SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]+[\"'”’)]*\s*")


# ------------------------------------------------------------------------------------- comparing


def words(text: str) -> list[str]:
    """Words in lower case; of Chinese and Japanese, characters."""
    return WORD.findall(text.lower())


def shingles(text: str) -> set[tuple[str, ...]]:
    """The runs of five words; of a shorter text, all its words."""
    found = words(text)
    if len(found) < GRAM:
        return {tuple(found)} if found else set()
    return set(zip(*(found[start:] for start in range(GRAM)), strict=False))


def jaccard(one: str, other: str) -> float:
    """Runs of five words that both texts have, as a share of those that either has."""
    first, second = shingles(one), shingles(other)
    return len(first & second) / max(len(first | second), 1)


class Novelty:
    """Remembers a quarter of all runs of five words, chosen by their checksum."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def is_new(self, text: str) -> bool:
        """Whether most of the text has not been seen; if so, it is remembered."""
        sums = {zlib.crc32(" ".join(gram).encode()) for gram in shingles(text)}
        sample = {number for number in sums if number % 4 == 0}
        if not sample or len(sample & self._seen) > MAX_SEEN_SHARE * len(sample):
            return False
        self._seen |= sample
        return True


# --------------------------------------------------------------------------------------- cutting


def cut(paragraphs: Iterable[str], rng: np.random.Generator) -> Iterator[str]:
    """Documents of 200 to 8,000 characters from consecutive paragraphs, each of them used once."""
    parts: list[str] = []
    length, target = 0, _length(rng)
    for paragraph in paragraphs:
        for piece in _pieces(paragraph):
            if length and length + len(piece) > MAX_CHARACTERS:
                yield from _document(parts)
                parts, length, target = [], 0, _length(rng)
            parts.append(piece)
            length += len(piece) + 2
            if length >= target:
                yield from _document(parts)
                parts, length, target = [], 0, _length(rng)


def _document(parts: list[str]) -> Iterator[str]:
    text = "\n\n".join(parts).strip()
    if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        yield text


def _length(rng: np.random.Generator) -> int:
    length = rng.lognormal(np.log(MEDIAN_CHARACTERS), 0.8)
    return int(np.clip(length, MIN_CHARACTERS, MAX_CHARACTERS - 1000))


def _pieces(paragraph: str) -> Iterator[str]:
    """The paragraph, or its lines or sentences where it is too long for a document."""
    if len(paragraph) <= MAX_CHARACTERS:
        yield paragraph
    else:
        yield from (sentence for sentence in sentences(paragraph) if len(sentence) < 4000)


def sentences(text: str) -> list[str]:
    return [match.strip() for match in SENTENCE.findall(text)]


# ----------------------------------------------------------------------------------------- prose


def prose_paragraphs(folder: Path) -> Iterator[str]:
    """The paragraphs of the novels, articles and stories, each on a line of its own."""
    for path in sorted(folder.glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            text = file.read()
        if path.name.startswith("wikitext"):
            text = _natural_spacing(text)
        lines = [line for line in text.split("\n") if line.strip()]
        is_line_paragraph = statistics.median(map(len, lines)) > 90
        paragraphs = lines if is_line_paragraph else re.split(r"\n\s*\n", text)
        for paragraph in paragraphs:
            joined = " ".join(paragraph.split())
            if len(joined) > 20 and not joined.isupper() and not joined.startswith("="):
                yield joined


def _natural_spacing(text: str) -> str:
    """WikiText as it was written, before it was taken apart into tokens."""
    text = re.sub(r" @(.)@ ", r"\1", text).replace(" <unk>", "")
    text = re.sub(r' " (.*?) "', r' "\1"', text)
    text = re.sub(r" ([,.;:!?)\]'])", r"\1", text)
    return re.sub(r"([(\[]) ", r"\1", text)


def sentence_pool(documents: Iterable[str]) -> list[str]:
    """Sentences that new documents are made of: 40 to 300 characters, none twice."""
    found = dict.fromkeys(sentence for text in documents for sentence in sentences(text))
    return [sentence for sentence in found if 40 <= len(sentence) <= 300]


# ------------------------------------------------------------------------------- technical text


def technical_files() -> list[Path]:
    """Manual pages, documentation and Python modules on this machine."""
    packages, library = Path(np.__file__).parents[1], Path(ast.__file__).parent
    manuals = [
        path
        for path in sorted(Path("/usr/share/man").glob("man[1-8]/*.gz"))
        if not path.name.startswith("gcloud")  # 17,000 pages from one template
    ]
    documentation = [
        path
        for path in [*sorted(Path("/usr/share/doc").rglob("*")), *sorted(packages.rglob("*"))]
        if re.search(r"(?i)\.(md|rst|txt)(\.gz)?$|^(readme|faq|news)\b", path.name)
        and not re.search(r"(?i)licen[cs]e|copying|copyright|change|authors|notice", path.name)
    ]
    modules = [path for path in sorted(library.rglob("*.py")) if "test" not in path.as_posix()]
    return [*manuals, *documentation, *(path for path in modules if packages not in path.parents)]


def technical_paragraphs(path: Path) -> list[str]:
    """The paragraphs of one of these files; of a module, its docstrings."""
    text = _read_gzip(path) if path.suffix == ".gz" else _read(path)
    if "man" in path.parts:
        parts = manual_paragraphs(text)
    elif path.suffix == ".py":
        parts = list(docstrings(text))
    else:
        parts = re.split(r"\n\s*\n", text)
    return [part.rstrip() for part in parts if part.strip()]


def is_prose(text: str) -> bool:
    """Whether this is written for readers, not a table, a listing or a list of names."""
    letters = sum(map(str.isalpha, text)) / max(len(text) - text.count(" "), 1)
    return letters >= 0.7 and len(re.findall(r"\w[.:!?](?:\s|$)", text)) >= len(text) / 500


def manual_paragraphs(source: str) -> list[str]:
    """The paragraphs of a manual page, its markup taken off; lines of a paragraph are joined."""
    parts: list[list[str]] = [[]]
    separator = " "
    paragraphs: list[str] = []

    def close() -> None:
        nonlocal parts
        joined = separator.join(filter(None, parts[-1]))
        if joined.strip():
            paragraphs.append(joined.strip(" "))
        parts = [[]]

    for line in source.split("\n"):
        if not line.startswith((".", "'")):
            parts[-1].append(_unescape(line)) if line.strip() else close()
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        arguments = [_unescape(found[0] or found[1]) for found in ARGUMENT.findall(rest)]
        if macro in ("SH", "SS", "Sh", "Ss", "PP", "P", "LP", "TP", "IP", "Pp", "It"):
            close()
            if macro[0] == "S":
                paragraphs.append(" ".join(arguments))
        elif macro in ("nf", "EX", "fi", "EE"):
            close()
            separator = "\n" if macro in ("nf", "EX") else " "
        elif macro in ("B", "I"):
            parts[-1].append(" ".join(arguments))
        elif macro in ("BR", "RB", "IR", "RI", "BI", "IB"):
            parts[-1].append("".join(arguments))
    close()
    return paragraphs


ARGUMENT = re.compile(r'"([^"]*)"|(\S+)')


ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303"}
ACCENTS |= {",": "\u0327", "o": "\u030a"}
CHARACTERS = {
    "aq": "'", "dq": '"', "bu": "•", "em": "—", "en": "–", "lq": "“", "rq": "”", "oq": "‘",
    "cq": "’", "ha": "^", "ti": "~", "co": "©", "mu": "×", "ss": "ß", "/o": "ø", "/O": "Ø",
    "ae": "æ", "AE": "Æ", "Fo": "«", "Fc": "»",
}  # fmt: skip


def _unescape(text: str) -> str:
    """Text without roff's escapes for fonts, spaces and characters."""
    text = re.sub(r'\\".*', "", text)
    text = re.sub(r"\\f(?:\(..|\[[^]]*\]|.)|\\s[-+]?\d+|\\[&|^/,%:c]|\\[wh]'[^']*'", "", text)
    text = re.sub(r"\\(?:\((..)|\[([^]]*)\])", lambda match: _character(match[1] or match[2]), text)
    text = re.sub(r"\\\*(?:\(..|\[[^]]*\]|.)", "", text)
    return text.replace("\\-", "-").replace("\\ ", " ").replace("\\~", " ").replace("\\e", "\\")


def _character(name: str) -> str:
    if len(name) == 2 and name[0] in ACCENTS and name[1].isalpha():
        return unicodedata.normalize("NFC", name[1] + ACCENTS[name[0]])
    if len(name) == 2 and name[0] == "o" and name[1] in "aA":
        return unicodedata.normalize("NFC", name[1] + ACCENTS["o"])
    return CHARACTERS.get(name, "")


def docstrings(source: str) -> Iterator[str]:
    """The longer docstrings of a Python module, their paragraphs kept together."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            found = ast.get_docstring(node)
            if found and len(found) > 300:
                yield found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:MAX_SOURCE_CHARACTERS]
    except (OSError, ValueError):
        return ""


def _read_gzip(path: Path) -> str:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return file.read(MAX_SOURCE_CHARACTERS)
    except (OSError, ValueError, EOFError):
        return ""


# ------------------------------------------------------------------------------ other languages


def foreign_paragraphs() -> Iterator[tuple[str, list[str]]]:
    """Language and paragraphs of the translated manual pages, left out what is not translated."""
    for language in LANGUAGES:
        is_foreign, least = language in NON_LATIN, 15 if language in NON_LATIN else 40
        used: set[str] = set()
        for path in sorted(Path("/usr/share/man", language).glob("man[1-8]/*.gz")):
            source = _read_gzip(path)
            parts = [] if "T{" in source else manual_paragraphs(source)
            new = [part for part in parts if len(part) >= least and part not in used]
            used.update(new)
            yield language, [part for part in new if not is_foreign or _foreign_share(part) > 0.3]


def _foreign_share(text: str) -> float:
    return sum(character > "\u036f" for character in text) / max(len(text), 1)


# ----------------------------------------------------------------------------------- the pools


@dataclass(frozen=True)
class Passage:
    """A document as somebody wrote it."""

    text: str
    origin: Literal["prose", "technical", "foreign"]
    language: str = "en"


def read_passages(folder: Path, seed: int) -> list[Passage]:
    """All documents that can be cut from the three pools, in random order."""
    rng, novelty = np.random.default_rng(seed), Novelty()
    found = [Passage(text, "prose") for text in cut(prose_paragraphs(folder), rng)]
    characters = 0
    files = technical_files()
    for number in rng.permutation(len(files)):
        for text in cut(technical_paragraphs(files[number]), rng):
            if is_prose(text):
                found.append(Passage(text, "technical"))
                characters += len(text)
        if characters > MAX_TECHNICAL_CHARACTERS:
            break
    for language, paragraphs in foreign_paragraphs():
        found += [Passage(text, "foreign", language) for text in cut(paragraphs, rng)]
    new = [passage for passage in found if novelty.is_new(passage.text)]
    return [new[number] for number in rng.permutation(len(new))]
