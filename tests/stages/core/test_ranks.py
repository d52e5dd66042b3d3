"""One process alone; two of them are tested with the stage ppo."""

import torch

from stages.core.config import Compute
from stages.core.ranks import Ranks


def test_one_process_is_the_main_one_and_exchanges_with_nobody():
    ranks = Ranks(Compute(device="cpu"))
    assert (ranks.count, ranks.index, ranks.is_main) == (1, 0, True)
    assert ranks.device == torch.device("cpu")
    assert ranks.share([4, 0, 3]) == [4, 0, 3]
    items = [object()]
    assert ranks.gather(items) is items
    tensor = torch.ones(3)
    ranks.add_up([tensor])
    assert tensor.tolist() == [1.0, 1.0, 1.0]
    ranks.wait()


def test_each_row_is_one_ranks():
    ranks = [Ranks(Compute(device="cpu")) for _ in range(3)]
    for index, one in enumerate(ranks):
        one.count, one.index = 3, index
    assert [one.share([5, 0, 1, 3, 4]) for one in ranks] == [[0, 3], [1, 4], [5]]
