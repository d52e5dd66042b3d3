"""Tiny random models and data sets for the whole stage, in the test's own process."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import LoRAConfig
from stages.core.contracts import Datasets, EvaluateInputs
from stages.core.models import (
    load_model,
    load_tokenizer,
    peft_config,
    save_adapter,
    save_model,
    tokenizer_digest,
)
from stages.core.schemas import write_jsonl
from stages.core.scoring import Probe, RewardModel, RewardModelManifest

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|start|>", "<|end|>", "<|user|>", "<|assistant|>")


def _tokenizer(chat_template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    pad, start, end, user, assistant = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        additional_special_tokens=[user, assistant],
        chat_template=chat_template,
    )


def _save_model(folder: Path, seed: int, chat_template: str = CHAT_TEMPLATE) -> Artifact:
    torch.manual_seed(seed)
    tokenizer = _tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 20  # or all three would answer alike
    save_model(model, tokenizer, folder)
    return make_artifact("model", folder)


def _save_reward_model(folder: Path, sft: Artifact, seed: int = 3) -> Artifact:
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(sft.locate())
    base = load_model(sft.locate(), torch.device("cpu"))
    model = get_peft_model(base, peft_config(LoRAConfig(rank=2)), adapter_name="reward")
    head = nn.Linear(16, 1, bias=False)
    save_adapter(model, "reward", sft, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(weights | {"score.weight": head.weight.data}, folder / "adapter_model.safetensors")
    manifest = RewardModelManifest(
        base_digest=sft.digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        max_length=64,
        score_mean=0.1,
        score_std=0.5,
        probes=[Probe(prompt="p", completion="c", score=0.0)],
    )
    (score,) = RewardModel(model, head, tokenizer, manifest).score(["p"], ["c"])
    probes = [Probe(prompt="p", completion="c", score=score)]
    manifest = manifest.model_copy(update={"probes": probes})
    (folder / "reward_model.json").write_text(manifest.model_dump_json())
    return make_artifact("reward_model", folder)


def _save_rows(folder: Path, kind: str, rows: list[Mapping[str, Any]]) -> Artifact:
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [])
    write_jsonl(folder / "held_out.jsonl", rows)
    return make_artifact(kind, folder)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Artifact]:
    """A function (folder, seed, chat_template=) that saves a random model with its tokenizer."""
    return _save_model


@pytest.fixture(scope="session")
def make_reward_model() -> Callable[..., Artifact]:
    """A function (folder, sft, seed=) that saves a random reward model on an SFT model."""
    return _save_reward_model


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> EvaluateInputs:
    """Three models, a reward model, data of every kind and a scorer of the user's."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "brevity.py").write_text(
        "def score(prompts, completions):\n    return [-len(text) for text in completions]\n"
    )
    (root / "history.jsonl").write_text(
        "".join(
            json.dumps({"episodes": 8 * n, "update": n, "score": n / 4, "kl": n / 2}) + "\n"
            for n in range(1, 5)
        )
    )
    sft = _save_model(root / "sft", 1)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "<|end|> | <script>"}]  # fmt: skip
    prompts = [{"prompt": f"Say {n}"} for n in range(8)] + [{"prompt": chat}, {"prompt": "x" * 90}]
    return EvaluateInputs(
        base=_save_model(root / "base", 0),
        sft=sft,
        policy=_save_model(root / "policy", 2),
        reward_model=_save_reward_model(root / "reward_model", sft),
        datasets=Datasets(
            documents=_save_rows(root / "documents", "documents", [{"text": "é" * 100}]),
            sft=_save_rows(root / "demos", "sft", [{"prompt": "Hi", "completion": "Yes"}] * 3),
            preferences=_save_rows(
                root / "pairs",
                "preferences",
                [{"prompt": f"{n}?", "chosen": "long " * n, "rejected": "no"} for n in range(1, 6)],
            ),
            prompts=_save_rows(root / "prompts", "prompts", prompts),
        ),
        history=make_artifact("history", root / "history.jsonl"),
        scorers={"brevity": make_artifact("scorer", root / "brevity.py")},
    )
