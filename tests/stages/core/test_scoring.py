"""Scorers: what a function must return, and which reward models are refused."""

import json
import shutil

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from stages.core.config import LoRAConfig
from stages.core.errors import UserError
from stages.core.models import active_adapter, load_model, load_tokenizer, peft_config, save_model
from stages.core.scoring import (
    MANIFEST_FILE,
    attach_reward_model,
    load_function_scorer,
    load_reward_model,
    read_manifest,
)

CPU = torch.device("cpu")
PROMPTS, REPLIES = ["What is it?", "And that?"], ["A door.", "Nobody knows."]


# ----------------------------------------------------------------------------- function scorers


def scorer(tmp_path, body, function="score"):
    path = tmp_path / "scorer.py"
    path.write_text(body)
    return load_function_scorer(path, function)


def test_a_functions_numbers_are_the_scores(tmp_path):
    body = "def score(prompts, completions):\n    return [len(c) for c in completions]\n"
    scores = scorer(tmp_path, body)(tuple(PROMPTS), tuple(REPLIES))
    assert scores == [7.0, 13.0]
    assert all(type(score) is float for score in scores)


def test_tensors_and_iterators_will_do(tmp_path):
    body = "import torch\ndef score(prompts, completions):\n    return torch.tensor([1, 2])\n"
    assert scorer(tmp_path, body)(PROMPTS, REPLIES) == [1.0, 2.0]
    body = "def score(prompts, completions):\n    yield from (0.5 for _ in prompts)\n"
    assert scorer(tmp_path, body)(PROMPTS, REPLIES) == [0.5, 0.5]


def test_a_scorers_file_may_define_dataclasses(tmp_path):
    body = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Weight:\n    value: float = 2.0\n"
        "def score(prompts, completions):\n    return [Weight().value for _ in prompts]\n"
    )
    assert scorer(tmp_path, body)(PROMPTS, REPLIES) == [2.0, 2.0]


@pytest.mark.parametrize(
    ("returned", "part"),
    [
        ("[1.0]", "must return one finite number for each reply"),
        ("[1.0, 2.0, 3.0]", "must return one finite number for each reply"),
        ("[1.0, float('nan')]", "must return one finite number for each reply"),
        ("[1.0, float('inf')]", "must return one finite number for each reply"),
        ("[1.0, 'good']", "ValueError: could not convert string to float: 'good'"),
        ("[1.0, None]", "TypeError"),
        ("None", "TypeError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_anything_but_one_finite_number_a_reply_is_refused(tmp_path, returned, part):
    score = scorer(tmp_path, f"def score(prompts, completions):\n    return {returned}\n")
    with pytest.raises(UserError, match=part) as refusal:
        score(PROMPTS, REPLIES)
    assert str(refusal.value).startswith(f"scorer {tmp_path / 'scorer.py'}:score: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("def score(:\n", "SyntaxError"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("rate = 1\n", "AttributeError: .* has no attribute 'score'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_any_reply(tmp_path, body, part):
    with pytest.raises(UserError, match=part) as refusal:
        scorer(tmp_path, body)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["gone.py", "notes.txt"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"{name}:score: no such Python file"):
        load_function_scorer(tmp_path / name, "score")


# ------------------------------------------------------------------------------- reward models


@pytest.fixture
def folder(reward_model_folder, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(reward_model_folder, tmp_path / "reward_model")


def change_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_a_sound_folder_gives_its_probes_scores(reward_model_folder, tiny_model_folder):
    loaded = load_reward_model(reward_model_folder, tiny_model_folder, CPU)
    probes = read_manifest(reward_model_folder).probes
    scores = loaded.score([p.prompt for p in probes], [p.completion for p in probes])
    assert scores == pytest.approx([p.score for p in probes], abs=1e-4)
    assert len({round(score, 3) for score in scores}) > 1


def test_the_size_of_a_batch_does_not_change_scores(reward_model_folder, tiny_model_folder):
    loaded = load_reward_model(reward_model_folder, tiny_model_folder, CPU)
    prompts, replies = PROMPTS * 3, ["a", "b " * 30, "c " * 5, "", "<|im_end|>", "d"]
    together = loaded.score(prompts, replies)
    assert together == pytest.approx(loaded.score(prompts, replies, batch_size=1), abs=1e-4)
    assert loaded.score([], []) == []


def test_attached_to_a_model_with_other_adapters_it_scores_the_same(
    reward_model_folder, tiny_model_folder
):
    alone = load_reward_model(reward_model_folder, tiny_model_folder, CPU).score(PROMPTS, REPLIES)
    config = peft_config(LoRAConfig(rank=2))
    model = get_peft_model(load_model(tiny_model_folder, CPU), config, adapter_name="policy")
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    attached = attach_reward_model(model, reward_model_folder, load_tokenizer(tiny_model_folder))
    assert attached.score(PROMPTS, REPLIES) == pytest.approx(alone, abs=1e-4)
    # The policy goes on to be trained, and is still the one that is active.
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), active_adapter(model, "policy"):
        inside = model(ids).logits
    with torch.no_grad():
        assert torch.equal(model(ids).logits, inside)


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        ("no head", "has no score head; train it again"),
        ("other head", "a probe scores .* away from its record"),
        ("head that is no number", "a probe scores nan away"),
        ("one changed matrix", "a probe scores"),
        ("missing matrix", "does not fit the base model"),
        ("additional matrix", "does not fit the base model"),
        ("no weights", "has no weights; train it again"),
        ("cut weights", "has no weights; train it again"),
        ("no adapter", "has no adapter; train it again"),
        ("no manifest", "not a reward model of this pipeline"),
        ("broken manifest", "not a reward model of this pipeline"),
        ("no probes", "not a reward model of this pipeline"),
        ("other score in a probe", "a probe scores"),
        ("other tokenizer", "tokenizer or chat template differs from the one of the reward model"),
    ],
)
def test_a_damaged_folder_is_refused(folder, tiny_model_folder, damage, part):
    def head(scale):
        def change(state):
            return {k: v * scale if k.endswith("score.weight") else v for k, v in state.items()}

        return change

    def without(end):
        def change(state):
            dropped = next(key for key in state if key.endswith(end))
            return {key: value for key, value in state.items() if key != dropped}

        return change

    weights, manifest = folder / "adapter_model.safetensors", folder / MANIFEST_FILE
    body = json.loads(manifest.read_text())
    if damage == "no head":
        change_weights(folder, without("score.weight"))
    elif damage == "other head":
        change_weights(folder, head(-1.0))
    elif damage == "head that is no number":
        change_weights(folder, head(float("nan")))
    elif damage == "one changed matrix":
        change_weights(
            folder, lambda state: {k: v + 0.5 if "lora_B" in k else v for k, v in state.items()}
        )
    elif damage == "missing matrix":
        change_weights(folder, without("lora_B.weight"))
    elif damage == "additional matrix":
        change_weights(folder, lambda state: state | {"base_model.x.lora_A.weight": torch.ones(1)})
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "no adapter":
        (folder / "adapter_config.json").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "broken manifest":
        manifest.write_text(manifest.read_text()[:-20])
    elif damage == "no probes":
        manifest.write_text(json.dumps(body | {"probes": []}))
    elif damage == "other score in a probe":
        body["probes"][-1]["score"] += 0.01 * body["score_std"]
        manifest.write_text(json.dumps(body))
    else:
        manifest.write_text(json.dumps(body | {"tokenizer_digest": "0" * 64}))
    with pytest.raises(UserError, match=part):
        load_reward_model(folder, tiny_model_folder, CPU)


@pytest.mark.parametrize("changes", [{}, {"hidden_size": 48}, {"num_hidden_layers": 1}])
def test_another_base_model_is_refused(reward_model_folder, tiny_model_folder, tmp_path, changes):
    config = load_model(tiny_model_folder, CPU).config
    config.update(changes)
    torch.manual_seed(99)
    config.head_dim = config.hidden_size // config.num_attention_heads
    save_model(LlamaForCausalLM(config), load_tokenizer(tiny_model_folder), tmp_path)
    with pytest.raises(UserError, match=r"a probe scores|does not fit the base model"):
        load_reward_model(reward_model_folder, tmp_path, CPU)


def test_normalised_scores_count_deviations_from_the_sft_models_mean(
    reward_model_folder, tiny_model_folder
):
    loaded = load_reward_model(reward_model_folder, tiny_model_folder, CPU)
    loaded.score_mean, loaded.score_std = 2.0, 0.5
    assert loaded.normalized([2.0, 3.0, 1.5]) == [0.0, 2.0, -1.0]
