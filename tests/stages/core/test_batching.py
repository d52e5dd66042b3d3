import itertools
import random

import pytest

from stages.core.batching import BATCH_COST_SHARE, token_budget_batches


def test_token_budget_batches_keep_to_the_budget_and_hold_each_index_once() -> None:
    lengths = random.Random(0).choices(range(1, 50), k=200)

    groups = list(token_budget_batches(lengths, max_tokens=120))

    assert sorted(index for group in groups for index in group) == list(range(200))
    assert all(len(group) * max(lengths[index] for index in group) <= 120 for group in groups)
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(lengths)


def cost(groups: list[list[int]], lengths: list[int], max_tokens: int) -> float:
    padded = [len(group) * max(lengths[index] for index in group) for group in groups]
    return sum(padded) + len(groups) * max_tokens * BATCH_COST_SHARE


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_of_the_sorted_rows_costs_less(seed: int) -> None:
    lengths = random.Random(seed).choices(range(1, 60), k=9)
    order = sorted(range(9), key=lambda index: lengths[index])
    cuts = itertools.chain.from_iterable(
        itertools.combinations(range(1, 9), count) for count in range(9)
    )
    allowed = []
    for cut in cuts:
        groups = [order[a:b] for a, b in itertools.pairwise((0, *cut, 9))]
        if all(len(group) * max(lengths[i] for i in group) <= 130 for group in groups):
            allowed.append(cost(groups, lengths, 130))
    found = list(token_budget_batches(lengths, max_tokens=130))
    assert cost(found, lengths, 130) == pytest.approx(min(allowed))


def test_token_budget_batches_close_a_group_before_it_exceeds_the_budget() -> None:
    assert list(token_budget_batches([5, 2, 3, 2], max_tokens=6)) == [[1, 3], [2], [0]]
    assert list(token_budget_batches([2, 2, 2, 2], max_tokens=6)) == [[0, 1, 2], [3]]


def test_an_over_long_row_forms_a_group_of_its_own() -> None:
    assert list(token_budget_batches([9, 1, 9], max_tokens=4)) == [[1], [0], [2]]


def test_no_rows_make_no_groups() -> None:
    assert list(token_budget_batches([], max_tokens=4)) == []
