"""Batches of sequences of similar length."""

import math
from collections.abc import Iterator, Sequence

BATCH_COST_SHARE = 1 / 24
"""What a batch costs beside its tokens, as a share of ``max_tokens``: about what it measured on
CPUs, and GPUs are kept from many small batches, too."""


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Groups of the indices of ``lengths``, each index once, shortest sequences first.

    A group's rows times its longest row, which is what it takes when padded, is at most
    ``max_tokens``; a row that is longer by itself forms a group of its own. Among all such ways to
    cut the sorted rows, it is the one with the least padding and the fewest groups, weighed by what
    a group costs. The groups depend on nothing but the lengths.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    costs = [0.0]  # of the first so many rows, cut in the best way
    starts = [0]  # where the last group of that way begins
    for stop in range(1, len(order) + 1):
        longest = lengths[order[stop - 1]]
        best, best_start = math.inf, stop - 1
        for start in reversed(range(stop)):
            tokens = (stop - start) * longest
            if tokens > max_tokens and start < stop - 1:
                break
            cost = costs[start] + tokens + max_tokens * BATCH_COST_SHARE
            if cost < best:
                best, best_start = cost, start
        costs.append(best)
        starts.append(best_start)
    groups = []
    stop = len(order)
    while stop:
        groups.append(order[starts[stop] : stop])
        stop = starts[stop]
    yield from reversed(groups)
