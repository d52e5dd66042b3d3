"""The least time an update could take: the arithmetic of its tokens at the machine's matmul rate.

``python tests/benchmarks/ppo_floor.py MODEL_FOLDER`` prints two rates as JSON, floating-point
operations a CPU-second on one thread: of large float32 matrix products, and of nothing but training
the model with transformers. The second says how much of the floor is in PyTorch's reach: the rest
is norms, activations, attention kernels and the writing of gradients.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MATRIX_SIZE = 2048
MEASURED_SECONDS = 3.0
TRAINED_ROWS, TRAINED_LENGTH = 8, 64
"""Of the batch of the plain training step: as many tokens as a micro batch has at most."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama that decide its arithmetic."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    layer_weights: int
    """Entries of a layer's weight matrices."""
    key_value_weights: int
    """Those of them that make keys and values."""

    @classmethod
    def read(cls, model_folder: Path) -> "Shape":
        """The shape of the model in a folder."""
        config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        key_value = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
        attention = 2 * hidden * hidden + 2 * hidden * key_value
        feed_forward = 3 * hidden * config["intermediate_size"]
        weights = attention + feed_forward
        return cls(layers, hidden, config["vocab_size"], weights, 2 * hidden * key_value)


def update_flops(
    shape: Shape, prompt_lengths: Sequence[int], reply_lengths: Sequence[int], num_epochs: int
) -> float:
    """Floating-point operations that one update needs, with a policy and a separate value model of
    which all weights are trained.

    Counted are matrix products of real tokens, at two operations an entry:

    * layers: 2 · weights a token; of the last layer only keys and values at tokens that predict no
      token of the reply;
    * attention: 4 · hidden size · layers for each pair of a token and one that it sees, itself
      included (products of queries and keys, and of their weights with the values); in the last
      layer only for tokens that predict one of the reply;
    * output heads only where they are needed: the vocabulary's at positions that predict a token
      of the reply, the value's there as well, the reward's once a reply.

    A backward pass counts twice its forward pass. The last token of a reply goes through no model
    but the reward model, since nothing is predicted from it. So an update needs: generation with a
    key–value cache (one forward pass, which also gives the old log-probabilities), one forward pass
    each of reference, value and reward model, and ``num_epochs`` forward and backward passes of
    policy and value model. Norms, activations, softmax, sampling and the optimizer's arithmetic are
    left out, as is everything that batching pads.
    """
    total = 0.0
    for prompt_length, reply_length in zip(prompt_lengths, reply_lengths, strict=True):
        layers = _layers_flops(shape, prompt_length + reply_length - 1, reply_length)
        policy = layers + 2 * shape.hidden_size * shape.vocab_size * reply_length
        value = layers + 2 * shape.hidden_size * reply_length
        reward = _layers_flops(shape, prompt_length + reply_length, 1) + 2 * shape.hidden_size
        generation, reference = policy, policy
        total += generation + reference + value + reward + num_epochs * 3 * (policy + value)
    return total


def _layers_flops(shape: Shape, num_tokens: int, num_needed: int) -> float:
    """One forward pass of one sequence through the layers, of which the final states at the last
    ``num_needed`` tokens are asked for."""
    pairs = num_tokens * (num_tokens + 1) / 2
    skipped = num_tokens - num_needed
    pairs_in_last = pairs - skipped * (skipped + 1) / 2
    attention = 4 * shape.hidden_size * ((shape.num_layers - 1) * pairs + pairs_in_last)
    below = 2 * (shape.num_layers - 1) * shape.layer_weights * num_tokens
    last = 2 * (shape.layer_weights * num_needed + shape.key_value_weights * skipped)
    return below + last + attention


def matmul_rate() -> float:
    """Operations a CPU-second of large float32 matrix products on one thread."""
    import torch

    torch.set_num_threads(1)
    left, right, product = (torch.randn(MATRIX_SIZE, MATRIX_SIZE) for _ in range(3))
    return 2 * MATRIX_SIZE**3 / _cpu_seconds(lambda: torch.mm(left, right, out=product))


def training_rate(model_folder: Path) -> float:
    """Operations a CPU-second of forward and backward passes of transformers' own model and loss,
    on rows without padding of which every token counts."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    shape = Shape.read(model_folder)
    ids = torch.randint(shape.vocab_size, (TRAINED_ROWS, TRAINED_LENGTH))
    head = 2 * shape.hidden_size * shape.vocab_size * TRAINED_LENGTH
    row = 3 * (_layers_flops(shape, TRAINED_LENGTH, TRAINED_LENGTH) + head)

    def step() -> None:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()

    return TRAINED_ROWS * row / _cpu_seconds(step)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """What ``work`` takes, once it is warm."""
    work()
    count, started = 0, time.process_time()
    while time.process_time() - started < MEASURED_SECONDS:
        work()
        count += 1
    return (time.process_time() - started) / count


if __name__ == "__main__":
    print(json.dumps({"matmul": matmul_rate(), "training": training_rate(Path(sys.argv[1]))}))
