"""The baseline that reads words without their order: what a reward model must beat to have
understood anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

WORD = r"\w+"
MAX_WORDS = 50_000
MAX_ITERATIONS = 1000

TextPair = tuple[str, str]
"""The chosen and the rejected reply."""


def word_margins(
    training: Sequence[TextPair], held_out: Sequence[TextPair]
) -> NDArray[np.float64] | None:
    """Log-odds that the first text of each held-out pair is the preferred one, shape (N,), by a
    logistic regression on the difference of both texts' TF-IDF vectors; none where the training
    texts hold no word.

    It learns from each pair in both orders and has no intercept, so that swapping the texts of a
    pair turns the sign. TF-IDF vectors have length 1: unlike counts they say little of how long a
    text is, which is a baseline of its own.
    """
    texts = [text for pair in training for text in pair]
    vectorizer = TfidfVectorizer(token_pattern=WORD, max_features=MAX_WORDS, sublinear_tf=True)
    try:
        vectorizer.fit(texts)
    except ValueError:  # an empty vocabulary
        return None
    difference = _differences(vectorizer, training)
    model = LogisticRegression(fit_intercept=False, max_iter=MAX_ITERATIONS)
    pairs = np.repeat(np.arange(len(training)), 2)
    signs = np.tile([1.0, -1.0], len(training))
    model.fit(difference[pairs].multiply(signs[:, None]).tocsr(), signs)
    margins: NDArray[np.float64] = model.decision_function(_differences(vectorizer, held_out))
    return margins


def _differences(vectorizer: TfidfVectorizer, pairs: Sequence[TextPair]) -> Any:
    """A sparse matrix (N, words)."""
    chosen = vectorizer.transform([pair[0] for pair in pairs])
    return chosen - vectorizer.transform([pair[1] for pair in pairs])
