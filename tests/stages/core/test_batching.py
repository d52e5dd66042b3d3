import itertools
import random

from stages.core.batching import token_budget_batches


def test_token_budget_batches_keep_to_the_budget_and_hold_each_index_once() -> None:
    lengths = random.Random(0).choices(range(1, 50), k=200)

    groups = list(token_budget_batches(lengths, max_tokens=120))

    assert sorted(index for group in groups for index in group) == list(range(200))
    assert all(len(group) * max(lengths[index] for index in group) <= 120 for group in groups)
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(lengths)
    for group, following in itertools.pairwise(groups):
        assert (len(group) + 1) * lengths[following[0]] > 120, "a group closed too early"


def test_token_budget_batches_close_a_group_before_it_exceeds_the_budget() -> None:
    assert list(token_budget_batches([5, 2, 3, 2], max_tokens=6)) == [[1, 3], [2], [0]]
    assert list(token_budget_batches([2, 2, 2, 2], max_tokens=6)) == [[0, 1, 2], [3]]


def test_an_over_long_row_forms_a_group_of_its_own() -> None:
    assert list(token_budget_batches([9, 1, 9], max_tokens=4)) == [[1], [0], [2]]


def test_no_rows_make_no_groups() -> None:
    assert list(token_budget_batches([], max_tokens=4)) == []
