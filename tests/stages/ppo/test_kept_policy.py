"""Which policy a stop returns to."""

import io

import pytest
import torch
from torch import nn

from stages.ppo.kept_policy import KeptPolicy


@pytest.fixture
def parameter():
    return nn.Parameter(torch.zeros(3))


def score(kept, parameter, updates):
    """After each update the weights are its number."""
    for update in updates:
        parameter.data.fill_(update)
        kept.note_scoring(update)


@pytest.mark.parametrize(
    ("window", "updates", "middle"),
    [(1, [0, 1], 1), (2, [0, 1, 2], 1), (3, [0, 1, 2], 1), (5, [0, 2, 4, 6, 8, 10], 6)],
)
def test_the_middle_of_the_window_is_kept(parameter, window, updates, middle):
    kept = KeptPolicy([parameter], window)
    score(kept, parameter, updates)
    assert kept.keep_middle() == middle
    parameter.data.fill_(-1)
    kept.restore()
    assert parameter.tolist() == [middle] * 3


def test_the_present_policy_is_kept_as_it_is_now(parameter):
    kept = KeptPolicy([parameter], 5)
    parameter.data.fill_(7)
    kept.restore()
    assert parameter.tolist() == [0, 0, 0]
    parameter.data.fill_(7)
    kept.keep()
    parameter.data.fill_(8)
    kept.restore()
    assert parameter.tolist() == [7, 7, 7]


def test_a_checkpoint_brings_back_what_was_scored(parameter):
    kept, file = KeptPolicy([parameter], 5), io.BytesIO()
    score(kept, parameter, range(4))
    torch.save(kept.state(), file)
    file.seek(0)
    resumed = KeptPolicy([parameter], 5)
    resumed.load_state(torch.load(file, weights_only=True))
    score(resumed, parameter, [4])
    assert resumed.keep_middle() == 2
    resumed.restore()
    assert parameter.tolist() == [2, 2, 2]
