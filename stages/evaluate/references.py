"""Replies against the replies of held-out demonstrations: ROUGE-L, BLEU, chrF, exact match, F1.

They measure overlap in wording. A good reply in other words scores low, so read them as differences
between models on the same prompts, and not across data sets.

Languages. ROUGE-L and F1 count words: letters, digits and marks of any script; Chinese, Japanese,
Thai, Lao, Burmese and Khmer, which put no spaces between words, are counted by characters, and so
is a text without any word. (rouge-score's own tokenizer keeps a-z and 0-9 alone, and gives 0 for
everything else.) No stemming. BLEU takes sacrebleu's tokenizer ``13a``, or ``char`` where most
letters of the references belong to those scripts. Exact match and F1 leave out case, punctuation
and the English articles as SQuAD does (Rajpurkar et al. 2016, section 6.1): in other languages a
word such as "a" or "an" is lost. chrF works on characters and needs none of this.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.helpers import extract_all_char_ngrams

from stages.core.statistics import (
    MAX_RESAMPLED_CELLS,
    Estimate,
    Unmeasured,
    bootstrap_mean,
    estimate,
    share,
)

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)
"""Characters of the scripts that put no spaces between words."""
ARTICLES = frozenset(("a", "an", "the"))
BLEU_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2
"""Weight of recall against precision."""

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceFigures:
    """One model's replies against the references."""

    num_compared: int
    """Pairs behind the figures."""
    num_without_reference: int
    """Pairs left out: the reference is blank, and there is nothing to agree with."""
    num_empty_replies: int
    """Blank replies among the compared: they agree with nothing, and count as such."""
    figures: dict[str, Estimate | Unmeasured]
    """rouge_l, exact_match and token_f1: means over the pairs, in 0..1; chrf_sentence: likewise, in
    0..100; bleu and chrf: of all pairs taken together, in 0..100."""
    signatures: dict[str, str]
    """Of sacrebleu for bleu and chrf: settings and version, as they are cited."""


def compare_with_references(
    replies: Sequence[str], references: Sequence[str], *, num_samples: int, seed: int
) -> ReferenceFigures:
    """Every figure with its 95 % interval: Wilson's for exact match, the bootstrap over pairs for
    the others.

    Args:
        replies, references: shape (N,) each, pair by pair.
        num_samples: resamples drawn.

    Raises:
        ValueError: different numbers of replies and references.
    """
    pairs = [
        (unicodedata.normalize("NFC", reply), unicodedata.normalize("NFC", reference))
        for reply, reference in zip(replies, references, strict=True)
        if reference.strip()
    ]
    figures: dict[str, Estimate | Unmeasured]
    signatures: dict[str, str] = {}
    if pairs:
        draw = {"num_samples": num_samples, "seed": seed}
        bleu = BLEU(tokenize="char" if _is_unspaced(text for _, text in pairs) else "13a")
        chrf = CHRF()
        matches, f1 = zip(*(_squad(*pair) for pair in pairs), strict=True)
        figures = {
            "rouge_l": bootstrap_mean(_rouge_l(pairs), **draw),
            "bleu": _bleu(bleu, pairs, **draw),
            "chrf": _chrf(chrf, pairs, **draw),
            "chrf_sentence": bootstrap_mean(
                [chrf.sentence_score(reply, [reference]).score for reply, reference in pairs],
                **draw,
            ),
            "exact_match": share(matches),
            "token_f1": bootstrap_mean(f1, **draw),
        }
        signatures = {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    else:
        reason = "every reference is blank" if references else "there are no references"
        names = ("rouge_l", "bleu", "chrf", "chrf_sentence", "exact_match", "token_f1")
        figures = dict.fromkeys(names, Unmeasured(reason))
    return ReferenceFigures(
        num_compared=len(pairs),
        num_without_reference=len(references) - len(pairs),
        num_empty_replies=sum(not reply.strip() for reply, _ in pairs),
        figures=figures,
        signatures=signatures,
    )


def split_words(text: str) -> list[str]:
    """Lower-case words of any script, single characters where a script has no spaces; the
    characters other than spaces where there is no word. For a-z and 0-9, rouge-score's words."""
    kept = "".join(
        character if unicodedata.category(character)[0] in "LMN" else " "
        for character in text.lower()
    )
    return UNSPACED.sub(r" \g<0> ", kept).split() or list("".join(text.split()))


def squad_words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles, as SQuAD compares answers. Where nothing
    would remain, the articles do, and failing them the characters."""
    kept = "".join(
        character
        for character in text.lower()
        if character not in string.punctuation and unicodedata.category(character)[0] != "P"
    )
    words = UNSPACED.sub(r" \g<0> ", kept).split()
    without_articles = [word for word in words if word not in ARTICLES]
    return without_articles or words or list("".join(text.split()))


def _is_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters belong to scripts without spaces between words."""
    letters = [character for text in texts for character in text if character.isalpha()]
    return 2 * len(UNSPACED.findall("".join(letters))) > len(letters)


class _Words(Tokenizer):
    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def _rouge_l(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """F-measure of the longest common subsequence (Lin 2004, section 3)."""
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    return [scorer.score(reference, reply)["rougeL"].fmeasure for reply, reference in pairs]


def _squad(reply: str, reference: str) -> tuple[float, float]:
    """Exact match and F1 of the words' counts."""
    given, expected = squad_words(reply), squad_words(reference)
    common = sum((Counter(given) & Counter(expected)).values())
    return float(given == expected), 2 * common / (len(given) + len(expected))


def _bleu(
    bleu: BLEU, pairs: Sequence[tuple[str, str]], *, num_samples: int, seed: int
) -> Estimate | Unmeasured:
    """Corpus BLEU with sacrebleu's smoothing; the n-gram counts of resampled pairs are summed."""
    scores = [bleu.corpus_score([reply], [[reference]]) for reply, reference in pairs]
    counts = np.array(
        [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores], float
    )
    if not counts[:, 2 * BLEU_ORDER - 1].any():
        return Unmeasured(f"no reply has the {BLEU_ORDER} words that BLEU looks at together")

    def score(summed: Counts) -> float:
        numbers = [int(number) for number in summed]
        return BLEU.compute_bleu(
            correct=numbers[:BLEU_ORDER],
            total=numbers[BLEU_ORDER : 2 * BLEU_ORDER],
            sys_len=numbers[-2],
            ref_len=numbers[-1],
            smooth_method=bleu.smooth_method,
        ).score

    resampled = [score(summed) for summed in _resampled_sums(counts, num_samples, seed)]
    low, high = np.percentile(resampled, (2.5, 97.5))
    replies, references = zip(*pairs, strict=True)
    return estimate(bleu.corpus_score(replies, [references]).score, low, high)


def _chrf(chrf: CHRF, pairs: Sequence[tuple[str, str]], *, num_samples: int, seed: int) -> Estimate:
    """Corpus chrF (Popović 2015); the n-gram counts of resampled pairs are summed."""
    counts = np.array([_chrf_counts(*pair) for pair in pairs], float)
    resampled = _chrf_scores(_resampled_sums(counts, num_samples, seed))
    low, high = np.percentile(resampled, (2.5, 97.5))
    replies, references = zip(*pairs, strict=True)
    return estimate(chrf.corpus_score(replies, [references]).score, low, high)


def _chrf_counts(reply: str, reference: str) -> list[int]:
    """Character n-grams of the reply, of the reference, and common ones, for n = 1, 2 …"""
    given = extract_all_char_ngrams(reply, CHRF_ORDER)
    expected = extract_all_char_ngrams(reference, CHRF_ORDER)
    return [
        # As in sacrebleu, the reply's do not count where the reference is too short to have any.
        *(given[n].total() if expected[n] else 0 for n in range(CHRF_ORDER)),
        *(expected[n].total() for n in range(CHRF_ORDER)),
        *((given[n] & expected[n]).total() for n in range(CHRF_ORDER)),
    ]


def _chrf_scores(counts: Counts) -> Counts:
    """F-measures in 0..100 of counts as in ``_chrf_counts``, shape (B, 18) to (B,): precision and
    recall are averaged over the lengths n of which both sides have n-grams."""
    given, expected, common = np.split(counts, 3, axis=1)
    both = (given > 0) & (expected > 0)
    num_orders = np.maximum(both.sum(axis=1), 1)
    precision = (np.where(both, common, 0) / np.maximum(given, 1)).sum(axis=1) / num_orders
    recall = (np.where(both, common, 0) / np.maximum(expected, 1)).sum(axis=1) / num_orders
    denominator = CHRF_BETA**2 * precision + recall
    f_measure = (1 + CHRF_BETA**2) * precision * recall / np.where(denominator > 0, denominator, 1)
    scores: Counts = 100 * f_measure
    return scores


def _resampled_sums(counts: Counts, num_samples: int, seed: int) -> Counts:
    """Column sums of resampled rows, shape (N, C) to (num_samples, C)."""
    rng = np.random.default_rng(seed)
    size = len(counts)
    at_once = max(1, MAX_RESAMPLED_CELLS // size)
    sums = np.empty((num_samples, counts.shape[1]))
    for start in range(0, num_samples, at_once):
        part = sums[start : start + at_once]
        part[:] = rng.multinomial(size, np.full(size, 1 / size), len(part)) @ counts
    return sums
