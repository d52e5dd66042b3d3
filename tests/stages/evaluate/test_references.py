"""Overlap with references against sacrebleu, rouge-score and values worked out by hand."""

import random
import warnings

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU, CHRF

from stages.core.statistics import Estimate, Unmeasured
from stages.evaluate import references as module
from stages.evaluate.references import compare_with_references, split_words, squad_words

DRAW = {"num_samples": 300, "seed": 0}
NAMES = {"rouge_l", "bleu", "chrf", "chrf_sentence", "exact_match", "token_f1"}


def texts(count=40, seed=0):
    """References, and replies that keep some of their words."""
    rng = random.Random(seed)
    words = [
        "the",
        "door",
        "was",
        "open,",
        "so",
        "she",
        "went",
        "in",
        "and",
        "closed",
        "it;",
        "no.",
    ]
    expected = [" ".join(rng.choices(words, k=rng.randint(1, 14))) for _ in range(count)]
    replies = [
        " ".join(word if rng.random() < 0.8 else rng.choice(words) for word in text.split())
        for text in expected
    ]
    replies[:3] = ["", "no", expected[2]]
    return replies, expected


def value(figures, name):
    return figures.figures[name].value


def test_the_corpus_figures_are_sacrebleus():
    replies, expected = texts()
    result = compare_with_references(replies, expected, **DRAW)
    assert result.figures.keys() == NAMES
    assert value(result, "bleu") == BLEU().corpus_score(replies, [expected]).score
    assert value(result, "chrf") == CHRF().corpus_score(replies, [expected]).score
    assert result.signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|")
    for estimate in result.figures.values():
        assert estimate.low < estimate.value < estimate.high
    assert (result.num_compared, result.num_without_reference, result.num_empty_replies) == (
        40, 0, 1,
    )  # fmt: skip


def test_the_mean_figures_are_their_packages():
    replies, expected = texts()
    result = compare_with_references(replies, expected, **DRAW)
    pairs = list(zip(replies, expected, strict=True))
    rouge = RougeScorer(["rougeL"])
    rouges = [rouge.score(text, reply)["rougeL"].fmeasure for reply, text in pairs]
    assert value(result, "rouge_l") == pytest.approx(sum(rouges) / 40)
    chrfs = [CHRF().sentence_score(reply, [text]).score for reply, text in pairs]
    assert value(result, "chrf_sentence") == pytest.approx(sum(chrfs) / 40)


def test_resampled_chrf_is_that_of_the_resampled_texts():
    replies, expected = texts()
    counts = [
        module._chrf_counts(reply, text) for reply, text in zip(replies, expected, strict=True)
    ]
    for seed in range(5):
        drawn = random.Random(seed).choices(range(40), k=40 if seed else 1)
        summed = [sum(column) for column in zip(*(counts[i] for i in drawn), strict=True)]
        chrf = CHRF().corpus_score([replies[i] for i in drawn], [[expected[i] for i in drawn]])
        assert module._chrf_scores(np.array([summed], float))[0] == pytest.approx(chrf.score)


def test_intervals_narrow_with_more_pairs_and_are_seeded():
    few = compare_with_references(*texts(40), **DRAW).figures
    many = compare_with_references(*texts(640), **DRAW).figures
    for name in NAMES:
        ratio = (few[name].high - few[name].low) / (many[name].high - many[name].low)
        assert 2 < ratio < 8, name  # 4 but for chance
    assert compare_with_references(*texts(40), **DRAW).figures == few
    assert compare_with_references(*texts(40), num_samples=300, seed=1).figures != few


def test_resampling_in_several_parts_is_the_same(monkeypatch):
    whole = compare_with_references(*texts(), **DRAW).figures
    monkeypatch.setattr(module, "MAX_RESAMPLED_CELLS", 170)
    parts = compare_with_references(*texts(), **DRAW).figures
    assert (parts["bleu"], parts["chrf"]) == (whole["bleu"], whole["chrf"])


def test_equal_texts_score_full():
    _, expected = texts()
    figures = compare_with_references(expected, expected, **DRAW).figures
    for name, full in dict.fromkeys(NAMES, 1.0).items():
        scale = 100 if name in ("bleu", "chrf", "chrf_sentence") else 1
        assert figures[name].value == pytest.approx(full * scale)
    # Wilson's: 40 of 40 do not prove that all would match.
    assert figures["exact_match"].low == pytest.approx(0.912, abs=1e-3)


# --------------------------------------------------------------------- exact match and F1, words


@pytest.mark.parametrize(
    ("reply", "reference", "match", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1, 1.0),
        ("an eiffel  tower in Paris", "the Eiffel Tower", 0, 2 * 2 / (4 + 2)),
        ("don't", "dont", 1, 1.0),
        ("red red", "red", 0, 2 / 3),
        ("", "tower", 0, 0.0),
        ("the", "The.", 1, 1.0),
        ("?!", "?!", 1, 1.0),
        ("👍", "👍", 1, 1.0),
        ("木が森にある", "木が森だ", 0, 2 * 3 / (6 + 4)),
        ("ΣΟΦΟΣ", "σοφος", 1, 1.0),
        ("“Tower”", "tower", 1, 1.0),
        ("café", "cafe\u0301", 1, 1.0),
    ],
)
def test_exact_match_and_f1(reply, reference, match, f1):
    result = compare_with_references([reply], [reference], **DRAW)
    assert value(result, "exact_match") == match
    assert value(result, "token_f1") == pytest.approx(f1)


def test_words_of_plain_english_are_rouge_scores():
    text = "Don't panic: 42 (forty-two) is The_answer…  OK? A.I. v2.0"
    assert split_words(text) == DefaultTokenizer().tokenize(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ça va, garçon?", ["ça", "va", "garçon"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("我有3只GPU猫", ["我", "有", "3", "只", "gpu", "猫"]),
        ("?!", ["?", "!"]),
        (" ", []),
    ],
)
def test_words_of_other_scripts(text, words):
    assert split_words(text) == words


def test_squad_words_leave_out_articles_and_punctuation():
    assert squad_words("The U.S.A. and a dog-house, $5") == ["usa", "and", "doghouse", "5"]


@pytest.mark.parametrize(
    ("reply", "reference"),
    [
        ("Он открыл дверь и вошёл.", "Он открыл дверь и вышел."),
        ("他打开门走了进去。", "他打开门走了出去。"),
        ("เขาเปิดประตูแล้วเดินเข้าไป", "เขาเปิดประตูแล้วเดินออกไป"),
    ],
)
def test_other_scripts_do_not_score_zero(reply, reference):
    figures = compare_with_references([reply] * 3, [reference] * 3, **DRAW).figures
    for name in NAMES - {"exact_match", "bleu"}:
        scale = 100 if name.startswith("chrf") else 1
        assert 0.4 < figures[name].value / scale < 1, name
    assert 30 < figures["bleu"].value < 100


def test_bleu_counts_characters_where_scripts_have_no_spaces():
    result = compare_with_references(["他打开门走了进去。"], ["他打开门走了出去。"], **DRAW)
    assert "tok:char" in result.signatures["bleu"]


# -------------------------------------------------------------------------- what has no figure


@pytest.mark.parametrize(
    ("replies", "references", "reason"),
    [
        ([], [], "there are no references"),
        (["a", "b"], ["", " \n"], "every reference is blank"),
    ],
)
def test_without_references_there_are_no_figures(replies, references, reason):
    result = compare_with_references(replies, references, **DRAW)
    assert result.figures == dict.fromkeys(NAMES, Unmeasured(reason))
    assert (result.num_compared, result.num_without_reference) == (0, len(references))


def test_blank_references_are_left_out_and_counted():
    result = compare_with_references(["x", "It is open."], [" ", "It is open."], **DRAW)
    assert (result.num_compared, result.num_without_reference) == (1, 1)
    assert value(result, "exact_match") == 1


def test_empty_replies_agree_with_nothing_and_bleu_cannot_say_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare_with_references(["", " "], ["It is open.", "It is shut."], **DRAW)
    assert result.num_empty_replies == 2
    for name in NAMES - {"bleu", "exact_match"}:
        assert result.figures[name] == Estimate(0, 0, 0), name
    assert value(result, "exact_match") == 0
    assert isinstance(result.figures["bleu"], Unmeasured)


def test_replies_too_short_for_bleu_have_none():
    result = compare_with_references(["yes it is"], ["yes it is"], **DRAW)
    assert result.figures["bleu"] == Unmeasured(
        "no reply has the 4 words that BLEU looks at together"
    )
    assert value(result, "chrf") == pytest.approx(100)


def test_different_numbers_of_texts_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        compare_with_references(["a", "b"], ["a"], **DRAW)
