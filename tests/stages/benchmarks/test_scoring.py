"""Trees give what their sequences give one by one, in fewer tokens."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from stages.benchmarks.scoring import TreeScorer, grow
from stages.core.logprobs import completion_logprobs

SIZES = {
    "llama": {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2},
    "gpt2": {"n_embd": 16, "n_head": 2, "n_layer": 2, "n_positions": 128},
    "bloom": {"hidden_size": 16, "n_head": 2, "n_layer": 2},
    "mistral": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "sliding_window": 8,
    },
}
BEGINNING = [5 + n % 40 for n in range(30)]


def tiny(kind):
    layers = {} if kind in ("gpt2", "bloom") else {"num_hidden_layers": 2}
    config = AutoConfig.for_model(kind, vocab_size=64, **layers, **SIZES[kind])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.3)
    return model


@pytest.fixture
def pairs():
    """Three questions with a common beginning: options of several lengths, of one token, and two
    that share words; in an order in which no question's options stand together."""
    options = [
        ([*BEGINNING, 1, 2], [[3, 4, 5], [6], [3, 4, 7]]),
        ([*BEGINNING, 9], [[10], [11]]),
        ([*BEGINNING, 1, 8, 12, 13], [[14, 15], [16, 17, 18, 19]]),
    ]
    pairs = [(context, option) for context, each in options for option in each]
    return pairs[::2] + pairs[1::2]


@pytest.mark.parametrize("kind", SIZES)
def test_each_option_gets_the_log_probability_of_its_sequence(kind, pairs):
    model = tiny(kind)
    plain = completion_logprobs(
        model,
        [context for context, _ in pairs],
        [option for _, option in pairs],
        temperature=1.0,
        max_tokens_per_batch=10_000,
        pad_token_id=0,
    )
    expected = [values.sum().item() for values in plain]
    scorer = TreeScorer(model, 4, 0)
    assert scorer.score(pairs) == pytest.approx(expected, abs=1e-4)
    # Other kinds of attention than to all tokens before are scored one by one.
    assert scorer.supports_trees == (kind in ("llama", "gpt2"))


def test_what_is_shared_is_read_once(pairs):
    model = tiny("llama")
    scorer = TreeScorer(model, 4, 0)
    num_read = []

    def count(module, arguments, options):
        if options["input_ids"] is not None:  # else it is the head that is asked
            num_read.append(options["input_ids"].numel())

    model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    done = []
    scorer.score(pairs, done.append)
    # The beginning, then three rows, padded to the longest one's 4 + 1 + 3.
    assert sum(num_read) == len(BEGINNING) + 3 * 8
    assert sum(done) == len(pairs)


def test_a_tree_holds_shared_tokens_once_and_predicts_the_last_ones_only():
    tree = grow([1, 2], [[3, 4, 5], [3, 4, 6], [7]])
    assert tree.tokens == [1, 2, 3, 4]
    assert tree.parents == [-1, 0, 1, 2]
    assert tree.predictors == [[1, 2, 3], [1, 2, 3], [1]]
    assert tree.is_chain
    assert not grow([1, 2], [[3, 4], [5, 6]]).is_chain
