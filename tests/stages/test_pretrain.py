"""Pretraining: packing keeps documents apart, settings are checked, resuming is exact."""

import math

import pytest
import torch
from transformers import Trainer

from stages import pretrain
from stages.core.artifacts import make_artifact
from stages.core.chat import encode_document
from stages.core.config import Compute, PretrainConfig
from stages.core.contracts import PretrainInputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer
from stages.core.schemas import write_jsonl

DOCUMENTS = [
    {"text": "Bram is a baker. He lives in Rope Street."},
    {"text": "The library has a green door."},
    {"text": "Runa keeps a goat, and the goat is old."},
]
TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip


def config(**changes) -> PretrainConfig:
    settings = {
        "model_overrides": TINY,
        "sequence_length": 32,
        "global_batch_size": 4,
        "num_epochs": 4,
        "learning_rate": 1e-2,
        "eval_steps": 4,
        "save_steps": 4,
        "num_samples": 1,
    }
    return PretrainConfig.model_validate(settings | changes)


def test_packed_documents_give_the_loss_of_each_on_its_own(tiny_model_folder, tmp_path):
    tokenizer, model = load_tokenizer(tiny_model_folder), load_model(tiny_model_folder, "cpu")
    path = tmp_path / "train.jsonl"
    write_jsonl(path, DOCUMENTS)
    ids = [encode_document(tokenizer, row["text"]) for row in DOCUMENTS]
    data, num_bytes = pretrain._packed(path, tokenizer, sum(map(len, ids)) + 5)
    assert len(data) == 1
    assert num_bytes == sum(len(row["text"]) for row in DOCUMENTS)
    batch = {name: torch.tensor(data[name]) for name in data.column_names}
    total = num_tokens = 0.0
    with torch.no_grad():
        packed_loss = float(model(**batch, use_cache=False).loss)
        for document in ids:
            tokens = torch.tensor([document])
            total += float(model(tokens, labels=tokens).loss) * (len(document) - 1)
            num_tokens += len(document) - 1
    assert packed_loss == pytest.approx(total / num_tokens, rel=1e-5)


def test_a_document_cut_by_a_sequence_counts_its_positions_anew(tokenizer_folder, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folder)
    path = tmp_path / "train.jsonl"
    write_jsonl(path, DOCUMENTS)
    data, _ = pretrain._packed(path, tokenizer, 16)
    for row in data:
        assert row["position_ids"][0] == 0
        for before, after in zip(row["position_ids"], row["position_ids"][1:], strict=False):
            assert after in (0, before + 1)


def test_an_unknown_architecture_field_names_the_nearest(make_dataset, tokenizer_folder, tmp_path):
    inputs = PretrainInputs(
        documents=make_dataset("documents", DOCUMENTS, DOCUMENTS),
        tokenizer=make_artifact("tokenizer", tokenizer_folder),
    )
    with pytest.raises(UserError, match="no field hiden_size; did you mean hidden_size"):
        pretrain.run(config(model_overrides={"hiden_size": 8}), inputs, Compute(), tmp_path)
    with pytest.raises(UserError, match="pretrain.model_type = lama: unknown"):
        pretrain.run(config(model_type="lama"), inputs, Compute(), tmp_path)


def test_sequences_longer_than_the_models_positions_are_refused(
    make_dataset, tokenizer_folder, tmp_path
):
    inputs = PretrainInputs(
        documents=make_dataset("documents", DOCUMENTS, DOCUMENTS),
        tokenizer=make_artifact("tokenizer", tokenizer_folder),
    )
    short = config(model_overrides=TINY | {"max_position_embeddings": 16})
    with pytest.raises(UserError, match="pretrain.sequence_length = 32 exceeds the model's 16"):
        pretrain.run(short, inputs, Compute(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [("llama", TINY), ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}), ("qwen3", TINY)],
)
def test_a_run_from_scratch_learns_and_the_model_loads(
    model_type, overrides, make_dataset, tokenizer_folder, tmp_path
):
    inputs = PretrainInputs(
        documents=make_dataset("documents", DOCUMENTS * 8, DOCUMENTS),
        tokenizer=make_artifact("tokenizer", tokenizer_folder),
    )
    settings = config(model_type=model_type, model_overrides=overrides)
    outputs, metrics = pretrain.run(settings, inputs, Compute(micro_batch_size=4), tmp_path)
    model = load_model(outputs.model.locate(), "cpu")
    assert model.config.model_type == model_type
    untrained = math.log(len(load_tokenizer(tokenizer_folder)))
    assert metrics["held_out_loss"] < 0.75 * untrained


@pytest.mark.slow
def test_continued_pretraining_and_exact_resume(
    make_dataset, tiny_model_folder, tmp_path, monkeypatch
):
    inputs = PretrainInputs(
        documents=make_dataset("documents", DOCUMENTS * 8, DOCUMENTS),
        model=make_artifact("model", tiny_model_folder),
    )
    (tmp_path / "straight").mkdir()
    straight, _ = pretrain.run(config(), inputs, Compute(), tmp_path / "straight")

    class Killed(Exception):
        pass

    original = Trainer.training_step
    calls = 0

    def dies_later(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise Killed
        return original(self, *args, **kwargs)

    out = tmp_path / "resumed"
    out.mkdir()
    monkeypatch.setattr(Trainer, "training_step", dies_later)
    with pytest.raises(Killed):
        pretrain.run(config(), inputs, Compute(), out)
    monkeypatch.setattr(Trainer, "training_step", original)
    resumed, _ = pretrain.run(config(), inputs, Compute(), out)
    assert resumed.model.digest == straight.model.digest
