"""SFT: what carries loss, what happens to long records, what comes out."""

import pytest
import torch
from peft import PeftModel

from stages import sft
from stages.core.artifacts import make_artifact
from stages.core.chat import encode_completion, encode_prompt
from stages.core.config import Compute, LoRAConfig, SFTConfig
from stages.core.contracts import SFTInputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer
from stages.core.schemas import write_jsonl

CPU = torch.device("cpu")
ROWS = [
    {"prompt": f"What is the job of {name}?", "completion": f"{name} is a {job}."}
    for name, job in [
        ("Bram", "baker"), ("Runa", "sailor"), ("Kelm", "teacher"), ("Osric", "doctor"),
    ]
]  # fmt: skip


def config(**changes) -> SFTConfig:
    settings = {
        "global_batch_size": 4,
        "num_epochs": 30,
        "learning_rate": 1e-2,
        "eval_steps": 10,
        "save_steps": 10,
        "max_length": 64,
        "lora": LoRAConfig(rank=8, alpha=16),
    }
    return SFTConfig.model_validate(settings | changes)


def test_only_the_completion_and_its_eos_carry_loss(tokenizer_folder, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folder)
    path = tmp_path / "train.jsonl"
    write_jsonl(path, ROWS[:1])
    data, _ = sft.tokenize(path, tokenizer, config())
    prompt = encode_prompt(tokenizer, ROWS[0]["prompt"])
    completion = encode_completion(tokenizer, ROWS[0]["completion"])
    assert data[0]["input_ids"] == prompt + completion
    assert data[0]["labels"] == [-100] * len(prompt) + completion
    assert data[0]["labels"][-1] == tokenizer.eos_token_id


def test_over_long_records_are_dropped_and_counted(tokenizer_folder, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folder)
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [*ROWS, {"prompt": "Why?", "completion": "because " * 100}])
    data, num_long = sft.tokenize(path, tokenizer, config(max_over_length_share=0.3))
    assert (len(data), num_long) == (4, 1)


def test_truncated_records_keep_some_completion_and_lose_eos(tokenizer_folder, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folder)
    path = tmp_path / "train.jsonl"
    write_jsonl(
        path,
        [
            {"prompt": "Why?", "completion": "because " * 100},
            {"prompt": "why " * 100, "completion": "Because."},
        ],
    )
    data, num_long = sft.tokenize(
        path, tokenizer, config(over_length="truncate", max_over_length_share=1)
    )
    # The second has no room for its completion: it would teach nothing.
    assert (len(data), num_long) == (1, 2)
    assert len(data[0]["input_ids"]) == 64
    assert data[0]["labels"][-1] not in (-100, tokenizer.eos_token_id)


def test_too_many_over_long_records_are_refused(tokenizer_folder, tmp_path):
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [{"prompt": "Why?", "completion": "because " * 100}] * 3)
    with pytest.raises(UserError, match=r"3 of 3 demonstrations exceed sft.max_length = 64"):
        sft.tokenize(path, load_tokenizer(tokenizer_folder), config())


def test_a_length_beyond_the_models_positions_is_refused(tiny_model_folder, make_dataset, tmp_path):
    inputs = SFTInputs(
        model=make_artifact("model", tiny_model_folder), sft=make_dataset("sft", ROWS, ROWS)
    )
    with pytest.raises(UserError, match=r"sft.max_length = 1000000 exceeds the model's"):
        sft.run(config(max_length=1_000_000), inputs, Compute(), tmp_path / "out")


@pytest.mark.slow
def test_a_run_learns_the_demonstrations_and_merges_what_it_learned(
    tiny_model_folder, make_dataset, tmp_path
):
    inputs = SFTInputs(
        model=make_artifact("model", tiny_model_folder), sft=make_dataset("sft", ROWS, ROWS)
    )
    out = tmp_path / "out"
    out.mkdir()
    outputs, metrics = sft.run(config(), inputs, Compute(micro_batch_size=4), out)
    assert metrics["held_out_loss"] < 1.5
    tokenizer = load_tokenizer(outputs.model.locate())
    merged = load_model(outputs.model.locate(), CPU)
    adapted = PeftModel.from_pretrained(
        load_model(tiny_model_folder, CPU), outputs.adapter.locate()
    ).eval()
    ids = torch.tensor([encode_prompt(tokenizer, ROWS[0]["prompt"])])
    with torch.no_grad():
        difference = (merged(ids).logits - adapted(ids).logits).abs().max()
        moved = (merged(ids).logits - load_model(tiny_model_folder, CPU)(ids).logits).abs().max()
    assert difference < 1e-3 < moved


@pytest.mark.slow
def test_early_stopping_keeps_the_best_model(tiny_model_folder, make_dataset, tmp_path):
    held_out = [{"prompt": "Where?", "completion": "zebra quartz vixen jumps"}]
    inputs = SFTInputs(
        model=make_artifact("model", tiny_model_folder), sft=make_dataset("sft", ROWS, held_out)
    )
    out = tmp_path / "out"
    out.mkdir()
    settings = config(early_stopping_patience=1, eval_steps=2, save_steps=2, learning_rate=5e-2)
    _, metrics = sft.run(settings, inputs, Compute(micro_batch_size=4), out)
    assert metrics["steps"] < 30
