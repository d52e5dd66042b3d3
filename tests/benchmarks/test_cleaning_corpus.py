"""The truth that the cleaning benchmark counts by."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cleaning_corpus
from cleaning_corpus import COPIES, Corpus, Document
from cleaning_figures import Outcome, score
from cleaning_personal_data import PERSONAL
from cleaning_text import Novelty, Passage, cut, jaccard, manual_paragraphs

ITEM = "which of these seven planets is the one that the old sailors called the evening star"


def passages() -> list[Passage]:
    """Documents of random words, so that no two are alike."""
    rng = np.random.default_rng(3)
    vocabulary = ["".join(rng.choice(list("aeioubcdfglmnprst"), 6)) for _ in range(3000)]

    def sentence() -> str:
        return " ".join(rng.choice(vocabulary, 12)).capitalize() + "."

    def text() -> str:
        return "\n\n".join(" ".join(sentence() for _ in range(4)) for _ in range(5))

    origins = ("prose", "prose", "prose", "technical", "foreign")
    return [Passage(text(), origins[number % 5]) for number in range(300)]


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    corpus = Corpus(passages(), [("planets", ITEM)], seed=5)
    return list(corpus.documents(3))


def test_the_same_seed_gives_the_same_documents(documents):
    again = list(Corpus(passages(), [("planets", ITEM)], seed=5).documents(3))
    assert again == documents
    assert sum(len(document.text.encode()) for document in documents) == pytest.approx(3e6, rel=0.1)


def test_copies_are_what_the_truth_says(documents):
    by_id = {document.id: document for document in documents}
    assert len(by_id) == len(documents)
    copies = [document for document in documents if document.copy_of]
    assert {document.fault for document in copies} == set(COPIES)
    assert len({document.copy_of for document in copies}) == len(copies)
    for copy in copies:
        source = by_id[copy.copy_of]
        assert not source.fault
        assert copy.similarity == pytest.approx(jaccard(source.text, copy.text))
        assert (copy.text == source.text) == (copy.fault == "exact")


def test_only_copies_are_near_duplicates(documents):
    """Of all pairs of the first 60 documents that are none."""
    alone = [document.text for document in documents if not document.copy_of][:60]
    pairs = [(one, other) for number, one in enumerate(alone) for other in alone[:number]]
    assert max(jaccard(*pair) for pair in pairs) < 0.3


def test_copies_reach_into_earlier_blocks(monkeypatch):
    monkeypatch.setattr(cleaning_corpus, "BLOCK_DOCUMENTS", 200)
    found = list(Corpus(passages(), [("planets", ITEM)], seed=5).documents(2))
    places = {document.id: number for number, document in enumerate(found)}
    copies = [document for document in found if document.copy_of]
    distances = [abs(places[document.copy_of] - places[document.id]) for document in copies]
    assert max(distances) > 200


def test_faults_are_in_the_text(documents):
    kinds = set()
    for document in documents:
        if document.fault == "evaluation_item":
            assert ITEM in document.text
        for value in (*document.personal, *document.decoys):
            assert value.sentence in document.text
            kinds.add(value.kind)
        if document.fault == "mojibake":
            assert document.passages
            assert not all(passage in document.text for passage in document.passages)
    assert kinds == {*PERSONAL, "decoy"}


def test_mojibake_is_utf_8_read_as_windows_1252():
    garbled = cleaning_corpus.misread("“Déjà vu”")
    assert garbled == "â€œDÃ©jÃ\xa0 vuâ€\x9d"


@pytest.mark.parametrize("form", ["DE", "GB", "NL", "ES"])
def test_accounts_have_right_check_digits(form):
    """ISO 13616: the first four characters moved to the end, letters as numbers, modulo 97."""
    account = PERSONAL["iban"][form](np.random.default_rng(0)).replace(" ", "")
    assert int("".join(str(int(letter, 36)) for letter in account[4:] + account[:4])) % 97 == 1


def test_cards_have_right_check_digits():
    rng = np.random.default_rng(0)
    for make in PERSONAL["credit_card"].values():
        digits = [int(digit) for digit in re.sub(r"\D", "", make(rng))]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        assert (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


# ---------------------------------------------------------------------------------------- text


def test_similarity_is_the_share_of_common_runs_of_five_words():
    # Runs of abcdef: abcde bcdef; of abcdeg: abcde bcdeg. One of three is common.
    assert jaccard("a b c d e f", "A b, c d e g!") == pytest.approx(1 / 3)
    # Characters of Chinese are words.
    assert jaccard("今天天气很好", "今天天气很差") == pytest.approx(1 / 3)


def test_what_says_again_what_was_said_is_not_new():
    novelty = Novelty()
    text = passages()[0].text
    assert novelty.is_new(text)
    assert not novelty.is_new(text.replace("a", "A"))


def test_documents_are_cut_between_paragraphs():
    paragraphs = ["-".join([f"paragraph {number}"] * 30) for number in range(40)]
    found = list(cut(paragraphs, np.random.default_rng(0)))
    assert all(200 <= len(text) <= 8000 for text in found)
    pieces = "\n\n".join(found).split("\n\n")
    assert pieces == paragraphs[: len(pieces)]
    assert len(pieces) > 30


def test_markup_of_manual_pages_is_taken_off():
    source = (
        '.SH "NAME"\nls \\- \\fBlist\\fR files\n.\\" comment\n.PP\nSee\n.BR find (1)\nd\\(\'ej\\(`a'
    )
    assert manual_paragraphs(source) == ["NAME", "ls - list files", "See find(1) déjà"]


# -------------------------------------------------------------------------------------- scoring


def copy(name: str, fault: str, similarity: float) -> list[dict]:
    source = {"id": f"{name}0", "origin": "prose"}
    return [
        source,
        source | {"id": name, "fault": fault, "copy_of": f"{name}0", "similarity": similarity},
    ]


def test_pairs_of_copies_count_as_found_when_one_is_removed():
    truth = [
        *copy("a", "edited_1", 0.9),  # found: the source goes
        *copy("b", "truncated", 0.85),  # not found
        *copy("c", "edited_1", 0.9),  # taken by another rule: not judged
        *copy("d", "edited_2.5", 0.75),  # removed, and below the threshold
        *copy("e", "case", 1.0),  # found
        {"id": "f", "origin": "technical"},  # removed, and a near duplicate of nothing
        {"id": "g", "origin": "technical"},
    ]
    removed = {
        "a0": "near_duplicate",
        "c": "junk",
        "d": "near_duplicate",
        "e": "duplicate",
        "f": "near_duplicate",
        "g": "junk",
    }
    kept = {document["id"]: "" for document in truth if document["id"] not in removed}
    figures = score(truth, Outcome(kept, removed))
    assert figures["near_duplicate_recall"] == 1 / 2
    assert figures["near_duplicate_precision"] == 2 / 3
    assert figures["near_duplicate_precision_at_threshold"] == 1 / 3
    assert figures["exact_duplicate_recall"] == 1
    assert figures["technical_rejected_share"] == 1 / 2


def test_personal_data_is_redacted_when_its_sentence_stays():
    value = ("email", "address", "a@b.org", "Write to a@b.org before Friday.")
    decoy = ("decoy", "version", "1.2.3.4", "See section 1.2.3.4 of the standard.")
    known = {"origin": "prose", "fault": "personal_data", "personal": [value], "decoys": [decoy]}
    truth = [known | {"id": name} for name in "abc"]
    kept = {
        "a": "Write to [EMAIL] before Friday. See section [IP] of the standard.",
        "b": "Write to a@b.org before Friday. See section 1.2.3.4 of the standard.",
        "c": "Both sentences are gone.",
    }
    figures = score(truth, Outcome(kept, {}))
    assert figures["pii_recall"] == 1 / 2
    assert figures["pii_precision"] == 1 / 2
