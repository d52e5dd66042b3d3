"""Bringing a model: a folder, a GGUF file, and what cannot be brought."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages import base_model
from stages.core.artifacts import make_artifact
from stages.core.chat import PLAIN_CHAT_TEMPLATE
from stages.core.config import BaseModelConfig, Compute
from stages.core.contracts import BaseModelInputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer

CPU = torch.device("cpu")


def bring(source, tmp_path, kind="model"):
    config = BaseModelConfig(source=str(source))
    inputs = BaseModelInputs(source=make_artifact(kind, source))
    return base_model.run(config, inputs, Compute(), tmp_path)


def test_a_folder_keeps_its_weights_and_tokenizer(tiny_model_folder, tmp_path):
    outputs, metrics = bring(tiny_model_folder, tmp_path)
    ids = torch.tensor([[3, 5, 8]])
    with torch.no_grad():
        before = load_model(tiny_model_folder, CPU)(ids).logits
        after = load_model(outputs.model.locate(), CPU)(ids).logits
    assert torch.equal(before, after)
    assert metrics["vocab_size"] == len(load_tokenizer(tiny_model_folder))


def test_a_model_without_chat_template_gets_the_plain_one(tiny_model_folder, tmp_path):
    tokenizer = load_tokenizer(tiny_model_folder)
    tokenizer.chat_template = None
    source = tmp_path / "source"
    AutoModelForCausalLM.from_pretrained(tiny_model_folder).save_pretrained(source)
    tokenizer.save_pretrained(source)
    (tmp_path / "out").mkdir()
    outputs, _ = bring(source, tmp_path / "out")
    assert load_tokenizer(outputs.model.locate()).chat_template == PLAIN_CHAT_TEMPLATE


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"base_model\.source = .*empty: cannot be loaded"):
        bring(tmp_path / "empty", tmp_path)


def test_code_that_a_model_brings_along_is_never_run(tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda text: pytest.fail(f"it asked: {text}"))
    source, ran = tmp_path / "source", tmp_path / "ran"
    shutil.copytree(tokenizer_folder, source)
    places = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (source / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": places}))
    (source / "code.py").write_text(f"open({os.fspath(ran)!r}, 'w')")
    with pytest.raises(UserError, match="needs code of its own to run, which this pipeline never"):
        bring(source, tmp_path)
    with pytest.raises(UserError, match="custom code"):
        load_model(source, CPU)
    assert not ran.exists()


def test_a_hub_name_must_be_pinned(tmp_path):
    with pytest.raises(UserError, match=r"pin it with base_model\.revision"):
        base_model.run(BaseModelConfig(source="some/model"), BaseModelInputs(), Compute(), tmp_path)


@pytest.mark.slow
def test_a_gguf_file_is_dequantised_and_answers(shared, tmp_path):
    done = subprocess.run(
        [shared / "tools" / "get_smollm2", tmp_path / "gguf"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    out.mkdir()
    outputs, _ = bring(next((tmp_path / "gguf").glob("*.gguf")), out)
    folder = outputs.model.locate()
    model, tokenizer = load_model(folder, CPU), load_tokenizer(folder)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        reply = model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0])
