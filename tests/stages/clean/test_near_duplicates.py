"""Signatures and clusters of near duplicates."""

import itertools
import random
import time

import numpy as np
import polars as pl
import pytest

from stages.clean import near_duplicates
from stages.clean.near_duplicates import (
    band_size,
    clusters,
    lowest_estimate,
    signatures,
)
from stages.core.words import ngrams, words

VOCABULARY = [f"{first}{last}" for first in "abcdefghij" for last in range(200)]


def make_text(rng, size=300):
    return " ".join(rng.choices(VOCABULARY, k=size))


def edit(rng, text, share):
    """Change, drop or add a word at this share of the places."""
    edited = []
    for word in text.split():
        if rng.random() >= share:
            edited.append(word)
        elif rng.random() < 0.75:
            edited += rng.choices(VOCABULARY, k=rng.choice((1, 2)))
    return " ".join(edited)


def cluster_texts(texts, similarity=0.8):
    return clusters(signatures(words(pl.Series(texts, dtype=pl.String))), similarity)


def exact_similarity(one, other):
    grams = [set(ngrams(words(pl.Series([text])), 5).hashes.tolist()) for text in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def test_edited_and_cut_texts_are_found_and_no_others():
    rng = random.Random(0)
    originals = [make_text(rng) for _ in range(400)]
    texts = [(number, text) for number, text in enumerate(originals)]
    for number, text in enumerate(originals[:150]):
        texts += [(number, edit(rng, text, share)) for share in (0.01, 0.025, 0.06)]
        texts.append((number, text[: int(len(text) * rng.uniform(0.5, 1))]))
    rng.shuffle(texts)
    labels = cluster_texts([text for _, text in texts])
    sources = {}
    for row, (number, _) in enumerate(texts):
        sources.setdefault(number, []).append(row)
    similar = found = 0
    for rows in sources.values():
        for one, other in itertools.combinations(rows, 2):
            if exact_similarity(texts[one][1], texts[other][1]) >= 0.8:
                similar += 1
                found += labels[one] == labels[other]
    assert similar > 200
    assert found >= 0.99 * similar
    removed = [row for row, label in enumerate(labels) if label != row]
    assert len(removed) > 200
    assert all(texts[row][0] == texts[labels[row]][0] for row in removed)
    assert all(labels[row] < row and labels[labels[row]] == labels[row] for row in removed)


def test_the_estimate_is_that_of_minhash():
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 10**9, 500))) for _ in range(100)]
    halves = [" ".join(text.split()[:250]) for text in texts]
    estimates = (signatures(words(pl.Series(texts))) == signatures(words(pl.Series(halves)))).mean()
    # 246 of 496 runs; the standard error over 100 texts is .0044.
    assert estimates == pytest.approx(246 / 496, abs=0.018)


def test_signatures_never_change():
    """They are kept beside the shards; another version of rensa would give others."""
    table = signatures(words(pl.Series(["one two three four five six", ""])))
    assert (table.shape, table.dtype) == ((2, 128), np.uint32)
    assert table[0, :3].tolist() == [3941573094, 3794786037, 3590704468]
    assert (table[1] == near_duplicates.EMPTY).all()


@pytest.mark.parametrize(
    ("similarity", "size", "lowest"),
    # 1 - .8 ** 6 = .738 of the pairs differ in one band, .738 ** 21 = .0017 in all.
    [(0.8, 6, 0.7116), (0.98, 21, 0.9491), (0.5, 2, 0.3895), (1.0, 128, 1.0), (0.0, 1, 0.0)],
)
def test_bands_let_pairs_of_the_similarity_through(similarity, size, lowest):
    assert band_size(similarity) == size
    assert lowest_estimate(similarity) == pytest.approx(lowest, abs=1e-4)


def test_short_texts_are_similar_to_equal_words_only():
    labels = cluster_texts(["Yes.", "no", "yes", "a b c d", "a b c", "A b, c d!", "b a c d"])
    assert labels.tolist() == [0, 1, 0, 3, 4, 3, 6]


def test_texts_without_words_are_similar_to_none():
    assert cluster_texts(["", "!!!", "???", "", "word", "word"]).tolist() == [0, 1, 2, 3, 4, 4]
    assert cluster_texts([]).tolist() == []


def test_a_chain_of_similar_texts_is_one_cluster():
    rng = random.Random(1)
    texts = [make_text(rng, 400)]
    for _ in range(8):
        texts.append(edit(rng, texts[-1], 0.02))
    assert exact_similarity(texts[0], texts[-1]) < 0.5
    assert cluster_texts([*texts[::-1], make_text(rng)]).tolist() == [0] * 9 + [9]


def test_many_equal_texts_take_linear_time():
    rng = random.Random(2)
    table = signatures(words(pl.Series([make_text(rng), make_text(rng)])))
    rows = np.arange(20_000) % 2
    began = time.perf_counter()
    assert clusters(table[rows], 0.8).tolist() == rows.tolist()
    assert time.perf_counter() - began < 5


def test_many_texts_of_a_bucket_that_are_not_similar_take_linear_time():
    """All share a band, as pages of one template do, and no two are similar."""
    table = np.random.default_rng(0).integers(0, 2**32, (20_000, 128), np.uint32)
    table[:, :6] = 7
    table[12_345] = table[12_344]
    table[19_999] = table[3]
    began = time.perf_counter()
    labels = clusters(table, 0.8)
    assert time.perf_counter() - began < 5  # comparing each with each takes minutes
    expected = np.arange(20_000)
    expected[12_345] = 12_344
    expected[19_999] = 3
    assert labels.tolist() == expected.tolist()


def test_shards_and_the_disk_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "ROWS_AT_ONCE", 100)
    rng = random.Random(3)
    texts = [make_text(rng, 60) for _ in range(150)]
    texts += [edit(rng, text, 0.01) for text in texts] + ["", "one"]
    whole = signatures(words(pl.Series(texts)))
    expected = clusters(whole, 0.8)
    assert len(set(expected.tolist())) < 250
    parts = [
        signatures(words(pl.Series(texts[first:end], dtype=pl.String)))
        for first, end in itertools.pairwise((0, 1, 120, 120, 302))
    ]
    assert (np.concatenate(parts) == whole).all()
    on_disk = np.lib.format.open_memmap(tmp_path / "table.npy", "w+", np.uint32, whole.shape)
    on_disk[:] = whole
    assert clusters(on_disk, 0.8).tolist() == expected.tolist()


def test_all_fields_must_be_similar():
    table = np.tile(np.random.default_rng(0).integers(0, 2**32, 128, np.uint32), (3, 1))
    table[1, :2] += 1  # 126 of 128 are equal, 62 of the first 64: .97, as near .98 as 64 can be
    table[2, 124:] += 1  # 124 of 128, 60 of the last 64
    assert lowest_estimate(0.98) * 128 < 124
    assert clusters(table, 0.98).tolist() == [0, 0, 0]
    assert clusters(table, 0.98, (64, 64)).tolist() == [0, 0, 2]
