"""A tokenizer, a model and data sets small enough for every stage's tests.

The artifacts lie outside every test's data root, so that their paths are absolute and good in all.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Compute, LoRAConfig, RewardModelConfig, TokenizerConfig
from stages.core.contracts import RewardModelInputs, TokenizerInputs
from stages.core.schemas import DataKind, read_jsonl, write_jsonl

Rows = Sequence[Mapping[str, Any]]
SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


@pytest.fixture(scope="session")
def make_dataset(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[DataKind, Rows, Rows], Artifact]:
    """A function (kind, train rows, held-out rows) that writes a data set as collect and clean do
    and returns its artifact."""
    root, numbers = tmp_path_factory.mktemp("datasets"), count()

    def make(kind: DataKind, train: Rows, held_out: Rows = ()) -> Artifact:
        folder = root / f"{kind}-{next(numbers)}"
        folder.mkdir()
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "held_out.jsonl", held_out)
        return make_artifact(kind, folder)

    return make


@pytest.fixture(scope="session")
def tokenizer_folder(
    make_dataset: Callable[..., Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Byte-level BPE of 512 tokens with ChatML's template: ``<|im_end|>`` ends replies,
    ``<|endoftext|>`` begins documents and pads."""
    from stages import tokenizer

    rows = list(read_jsonl(SAMPLES / "documents_held_out.jsonl"))
    inputs = TokenizerInputs(documents=make_dataset("documents", rows, rows[:10]))
    out_dir = tmp_path_factory.mktemp("tokenizer")
    outputs, _ = tokenizer.run(TokenizerConfig(vocab_size=512), inputs, Compute(), out_dir)
    return outputs.tokenizer.locate()


@pytest.fixture(scope="session")
def tiny_model_folder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers and hidden size 32 with that tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from stages.core.models import load_tokenizer, save_model

    tokenizer = load_tokenizer(tokenizer_folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,  # far from uniform, so that a mistake shows
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("tiny-model")
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def reward_model_folder(
    tiny_model_folder: Path,
    make_dataset: Callable[..., Artifact],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A reward model of 60 toy pairs, made by the stage itself."""
    from stages import reward_model

    pairs = [
        {"prompt": f"Where is house {n}?", "chosen": "In Mill Street.", "rejected": "Go away now."}
        for n in range(60)
    ]
    config = RewardModelConfig(
        lora=LoRAConfig(rank=4, alpha=8),
        learning_rate=1e-2,
        global_batch_size=12,
        max_length=96,
        max_completion_length=8,
        num_statistics_samples=8,
    )
    inputs = RewardModelInputs(
        model=make_artifact("model", tiny_model_folder),
        preferences=make_dataset("preferences", pairs[:48], pairs[48:]),
        prompts=make_dataset("prompts", [{"prompt": pair["prompt"]} for pair in pairs], []),
    )
    out_dir = tmp_path_factory.mktemp("reward-model")
    outputs, _ = reward_model.run(config, inputs, Compute(device="cpu"), out_dir)
    return outputs.reward_model.locate()
