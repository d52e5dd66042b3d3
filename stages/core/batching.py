"""Batches of sequences of similar length."""

from collections.abc import Iterator, Sequence


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Groups of the indices of ``lengths``, each index once, shortest sequences first.

    A group's rows times its longest row, which is what it takes when padded, is at most
    ``max_tokens``; a row that is longer by itself forms a group of its own. Sequences of equal
    length keep their order, so that the groups depend on nothing but the lengths.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if group and (len(group) + 1) * lengths[index] > max_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
