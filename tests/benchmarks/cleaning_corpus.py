"""A corpus with known faults, for measuring what cleaning finds.

    python tests/benchmarks/cleaning_corpus.py FOLDER [--megabytes 60] [--seed 0]

Writes ``documents/train.jsonl`` and ``documents/held_out.jsonl`` as the stage collect does (columns
id, text, source) and ``truth.jsonl``: a line for each document with its origin, and for a faulty
one with what is wrong with it. The same seed gives the same bytes on the same machine, whose manual
pages and documentation are part of the text.

Documents are written by people as long as there are any: the novels and articles, technical text,
manual pages in other languages. Then new ones are put together from their sentences (technical ones
from their paragraphs), at random, so that none is a near duplicate of another by accident.

A document has one fault or none. Copies are of documents that are themselves sound, and no document
is copied twice. Of each near duplicate the exact Jaccard similarity (runs of five words) is noted.
"""

import argparse
import base64
import gzip
import json
import re
import string
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from cleaning_personal_data import Random, Value, characters, decoy, personal, pick
from cleaning_text import Passage, jaccard, read_passages, sentence_pool, words

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

SHARES = {
    "exact": 0.03,
    "case": 0.01,
    "spacing": 0.01,
    "edited_1": 0.02,
    "edited_2.5": 0.02,
    "edited_6": 0.02,
    "truncated": 0.02,
    "mojibake": 0.02,
    "personal_data": 0.06,
    "junk": 0.03,
    "evaluation_item": 0.015,
}
"""Of the documents; the others are sound."""
COPIES = ("exact", "case", "spacing", "edited_1", "edited_2.5", "edited_6", "truncated")
EDITED = {"edited_1": 0.01, "edited_2.5": 0.025, "edited_6": 0.06}
"""Share of the words that are replaced, left out or doubled."""
TECHNICAL_SHARE, FOREIGN_SHARE = 0.15, 0.04
HELD_OUT_EVERY = 100
"""One document of so many is held out, if it is sound."""
BLOCK_DOCUMENTS = 4000
EARLIER_DOCUMENTS, EARLIER_SHARE = 500, 0.3
"""Copies are of documents of the same block or, this share, of one of so many earlier ones."""
MIN_COPIED_WORDS = 60
MIN_ITEM_WORDS = 20
"""Of an evaluation item, so that 13 of them in a row are there."""


@dataclass
class Document:
    """A document and the truth about it."""

    id: str
    text: str
    origin: str
    """prose, technical, foreign; junk."""
    language: str = "en"
    is_recombined: bool = False
    """Put together from sentences of several documents."""
    fault: str = ""
    copy_of: str = ""
    """Id of the document that this is a copy of."""
    similarity: float = 0.0
    """Exact Jaccard similarity of the two."""
    personal: list[Value] = field(default_factory=list)
    """What must be redacted."""
    decoys: list[Value] = field(default_factory=list)
    """What must not."""
    passages: list[str] = field(default_factory=list)
    """Of a document with mojibake: pieces of the right text, with characters outside ASCII."""
    junk: str = ""
    evaluation_set: str = ""


class Corpus:
    """Makes documents in blocks, so that any number of them takes the memory of one block."""

    def __init__(self, passages: list[Passage], items: list[tuple[str, str]], seed: int) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._unused = {
            origin: iter([passage for passage in passages if passage.origin == origin])
            for origin in ("prose", "technical", "foreign")
        }
        prose = [passage.text for passage in passages if passage.origin == "prose"]
        technical = [passage.text for passage in passages if passage.origin == "technical"]
        self._sentences = sentence_pool(prose)
        pieces = dict.fromkeys(piece for text in technical for piece in text.split("\n\n"))
        self._paragraphs = [piece for piece in pieces if 150 <= len(piece) <= 1200]
        self._vocabulary = sorted({word for text in prose[:500] for word in words(text)})
        self._items = items
        self._number = 0
        self._earlier: list[Document] = []
        """Sound documents of earlier blocks that are not copied yet."""

    def documents(self, megabytes: float) -> Iterator[Document]:
        """Documents of nearly so many million bytes of text in all."""
        left = megabytes * 1e6
        while left > 0:
            block = self._block()
            ends = list(accumulate(len(document.text.encode()) for document in block))
            if ends[-1] > left:  # copies of what no longer fits would be none
                fitting = block[: bisect_right(ends, left)]
                names = {document.id for document in fitting}
                missing = {document.id for document in block} - names
                block = [document for document in fitting if document.copy_of not in missing]
            yield from block
            left -= ends[-1]

    def _block(self) -> list[Document]:
        """Sound documents, copies of some of them or of earlier ones, and faulty ones, in random
        order."""
        rng = self._rng
        shares = [1 - sum(SHARES.values()), *SHARES.values()]
        faults = rng.choice(["", *SHARES], BLOCK_DOCUMENTS, p=shares).tolist()
        block = [self._sound() for fault in faults if not fault]
        long_enough = [
            block[number]
            for number in rng.permutation(len(block))
            if len(block[number].text.split()) >= MIN_COPIED_WORDS
        ]
        for fault in filter(None, faults):
            if fault in COPIES:
                is_far = self._earlier and rng.random() < EARLIER_SHARE
                source = (self._earlier if is_far else long_enough).pop()
                block.append(self._copy(source, fault))
            else:
                block.append(self._faulty(fault))
        self._earlier = (self._earlier + long_enough[:EARLIER_DOCUMENTS])[-EARLIER_DOCUMENTS:]
        block = [block[number] for number in rng.permutation(len(block))]
        for document in block:
            document.id = document.id or self._next_id()
        return block

    def _next_id(self) -> str:
        self._number += 1
        return f"d{self._number:08d}"

    # ------------------------------------------------------------------------------ sound ones

    def _sound(self, origin: str = "") -> Document:
        rng = self._rng
        if not origin:
            place = rng.random()
            is_technical = place < TECHNICAL_SHARE
            is_foreign = TECHNICAL_SHARE < place < TECHNICAL_SHARE + FOREIGN_SHARE
            origin = "technical" if is_technical else "foreign" if is_foreign else "prose"
        passage = next(self._unused[origin], None)
        if passage:
            return Document("", passage.text, passage.origin, passage.language)
        if origin == "technical":
            number = int(rng.integers(5, 12))
            text = "\n\n".join(self._draw(self._paragraphs, number))
            return Document("", text, "technical", is_recombined=True)
        number = int(np.clip(rng.lognormal(np.log(16), 0.6), 8, 70))
        sentences = self._draw(self._sentences, number)
        length = int(rng.integers(3, 8))
        text = "\n\n".join(
            " ".join(sentences[start : start + length]) for start in range(0, number, length)
        )
        return Document("", text, "prose", is_recombined=True)

    def _draw(self, pool: list[str], count: int) -> list[str]:
        return [pool[number] for number in self._rng.integers(0, len(pool), count)]

    # ---------------------------------------------------------------------------------- copies

    def _copy(self, source: Document, fault: str) -> Document:
        source.id = source.id or self._next_id()
        text = self._changed(source.text, fault)
        same_words = fault in ("exact", "case", "spacing")
        return Document(
            "",
            text,
            source.origin,
            source.language,
            source.is_recombined,
            fault,
            copy_of=source.id,
            similarity=1.0 if same_words else jaccard(source.text, text),
        )

    def _changed(self, text: str, fault: str) -> str:
        rng = self._rng
        if fault == "case":
            return text.upper() if rng.random() < 0.5 else text.lower()
        if fault == "spacing":
            old, new = pick(rng, [(" ", "  "), (". ", ".\n")])
            return text.replace(old, new) + "\n"
        if fault == "truncated":
            return text[: int(len(text) * rng.uniform(0.6, 0.97))]
        if fault in EDITED:
            return self._edited(text, EDITED[fault])
        return text

    def _edited(self, text: str, share: float) -> str:
        rng = self._rng
        lines = [line.split(" ") for line in text.split("\n")]
        places = [(row, column) for row, line in enumerate(lines) for column in range(len(line))]
        count = max(1, round(share * len(places)))
        for number in rng.choice(len(places), count, replace=False):
            row, column = places[number]
            word = lines[row][column]
            change = rng.integers(3)
            other = pick(rng, self._vocabulary)
            lines[row][column] = ("", other, f"{word} {other}")[change]
        return "\n".join(" ".join(line) for line in lines)

    # ---------------------------------------------------------------------------------- faults

    def _faulty(self, fault: str) -> Document:
        rng = self._rng
        if fault == "junk":
            kind = pick(rng, list(JUNK))
            text = JUNK[kind](rng, self._vocabulary)
            return Document("", text, "junk", fault=fault, junk=kind)
        if fault == "mojibake":
            return self._garbled()
        document = self._sound("prose")
        document.fault = fault
        paragraphs = document.text.split("\n\n")
        place = int(rng.integers(len(paragraphs) + 1))
        if fault == "evaluation_item":
            document.evaluation_set, item = pick(rng, self._items)
            paragraphs.insert(place, item)
        else:
            real = [personal(rng) for _ in range(rng.integers(1, 4))]
            false = [decoy(rng) for _ in range(rng.integers(0, 3))]
            for value in (*real, *false):
                place = int(rng.integers(len(paragraphs) + 1))
                paragraphs.insert(place, value.sentence)
            document.personal, document.decoys = real, false
        document.text = "\n\n".join(paragraphs)
        return document

    def _garbled(self) -> Document:
        """A document whose UTF-8 was read as Windows-1252: with typographic quotation marks and
        accents, or in another language of Europe."""
        document = self._sound("foreign" if self._rng.random() < 0.3 else "prose")
        if document.origin == "prose" or document.text.isascii():
            document.text = typographic(document.text, self._rng)
        text = document.text
        passages = [
            text[max(0, place - 10) : place + 10].strip()
            for place, letter in enumerate(text)
            if letter > "\x7f"
        ]
        # Some sources were garbled before.
        document.passages = [part for part in passages if not re.search("[âÃ@]", part)][:20]
        document.fault = "mojibake"
        document.text = misread(text)
        return document


def typographic(text: str, rng: Random) -> str:
    """English as a typesetter gives it, with some words from French."""
    text = text.replace("'", "’").replace(" - ", " — ").replace("--", "—")
    for part in range(text.count('"')):
        text = text.replace('"', "”" if part % 2 else "“", 1)
    borrowed = ["café", "naïve", "façade", "déjà vu", "fiancée", "coöperate", "Zürich", "señor"]
    sentences = text.split(". ")
    for place in rng.integers(0, len(sentences), 2):
        sentences[place] += f" and the {pick(rng, borrowed)}"
    return ". ".join(sentences)


def misread(text: str) -> str:
    """UTF-8 read as Windows-1252, the bytes that it does not define as the control characters that
    browsers make of them."""
    return "".join(
        bytes([byte]).decode("cp1252" if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else "latin-1")
        for byte in text.encode()
    )


# ------------------------------------------------------------------------------------------ junk


def _random_characters(rng: Random, _: list[str]) -> str:
    return characters(rng, int(rng.integers(300, 2500)), string.punctuation + string.ascii_letters)


def _repeated_phrase(rng: Random, vocabulary: list[str]) -> str:
    phrase = " ".join(pick(rng, vocabulary) for _ in range(rng.integers(3, 9)))
    return f"{phrase}. " * int(rng.integers(30, 120))


def _repeated_lines(rng: Random, vocabulary: list[str]) -> str:
    lines = [" ".join(pick(rng, vocabulary) for _ in range(8)) for _ in range(3)]
    return "\n".join(pick(rng, lines) for _ in range(rng.integers(20, 80)))


def _links(rng: Random, vocabulary: list[str]) -> str:
    lines = [
        f"https://www.{pick(rng, vocabulary)}.com/{pick(rng, vocabulary)}/{rng.integers(1e6)}"
        for _ in range(rng.integers(15, 60))
    ]
    return "\n".join(lines)


def _base64(rng: Random, _: list[str]) -> str:
    encoded = base64.b64encode(rng.bytes(int(rng.integers(300, 2500)))).decode()
    return "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))


def _numbers(rng: Random, _: list[str]) -> str:
    rows = rng.integers(0, 100_000, (int(rng.integers(20, 80)), 8))
    return "\n".join("\t".join(map(str, row)) for row in rows)


def _symbols(rng: Random, _: list[str]) -> str:
    return "\n".join(pick(rng, "*-=#~_|+") * 60 for _ in range(rng.integers(10, 40)))


def _menu(rng: Random, vocabulary: list[str]) -> str:
    entries = [pick(rng, vocabulary).title() for _ in range(rng.integers(40, 120))]
    return "\n".join(f"{pick(rng, '•>»-')} {entry}" for entry in entries)


JUNK = {
    "random characters": _random_characters,
    "repeated phrase": _repeated_phrase,
    "repeated lines": _repeated_lines,
    "links": _links,
    "base64": _base64,
    "numbers": _numbers,
    "symbols": _symbols,
    "menu": _menu,
}


# ------------------------------------------------------------------------------ evaluation items

ITEM_FIELDS = {
    "mmlu/test": "question",
    "hellaswag/validation": "ctx",
    "arc_challenge/test": "question",
    "arc_easy/test": "question",
    "truthful_qa_mc/validation": "question",
    "super_glue/boolq/validation": "passage",
    "super_glue/multirc/validation": "paragraph",
    "glue/mrpc/test": "sentence1",
}
"""Of the evaluation sets: what is put into documents."""


def read_items(folder: Path) -> list[tuple[str, str]]:
    """Evaluation set and text of the items that are long enough."""
    items = []
    for name, column in ITEM_FIELDS.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            texts = dict.fromkeys(json.loads(line)[column] for line in file)
        items += [(name, text) for text in texts if len(words(text)) >= MIN_ITEM_WORDS]
    return items


# --------------------------------------------------------------------------------------- writing


def write_corpus(folder: Path, megabytes: float, seed: int, shared: Path = SHARED) -> None:
    """Write the corpus and the truth about it."""
    documents = folder / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(read_passages(shared / "pretrain", seed), read_items(shared / "eval"), seed)
    with (
        (documents / "train.jsonl").open("w", encoding="utf-8") as train,
        (documents / "held_out.jsonl").open("w", encoding="utf-8") as held_out,
        (folder / "truth.jsonl").open("w", encoding="utf-8") as truth,
    ):
        for number, document in enumerate(corpus.documents(megabytes)):
            is_held_out = number % HELD_OUT_EVERY == 0 and not document.fault
            row = {"id": document.id, "text": document.text, "source": document.origin}
            line = json.dumps(row, ensure_ascii=False)
            (held_out if is_held_out else train).write(f"{line}\n")
            known = {
                name: value for name, value in asdict(document).items() if value and name != "text"
            }
            known["bytes"] = len(document.text.encode())
            truth.write(json.dumps(known | {"is_held_out": is_held_out}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--megabytes", type=float, default=60, help="size; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--shared", type=Path, default=SHARED, help="data; default: %(default)s")
    options = parser.parse_args()
    write_corpus(options.folder, options.megabytes, options.seed, options.shared)


if __name__ == "__main__":
    main()
