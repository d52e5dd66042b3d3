"""Which reward models are refused, and that scores do not depend on what surrounds them."""

import json
import shutil

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from stages.core.chat import encode_prompt, encode_text
from stages.core.config import LoRAConfig
from stages.core.errors import UserError
from stages.core.models import active_adapter, load_model, load_tokenizer, peft_config, save_model
from stages.core.scoring import (
    MANIFEST_FILE,
    REWARD_ADAPTER,
    RewardModel,
    attach_reward_model,
    load_reward_model,
    read_manifest,
)

CPU = torch.device("cpu")
PROMPTS, REPLIES = ["What is it?", "And that?"], ["A door.", "Nobody knows."]


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
    one_by_one = loaded.score(prompts, replies, max_tokens_per_batch=1)
    assert together == pytest.approx(one_by_one, abs=1e-5)
    assert loaded.score([], []) == []


def test_texts_beyond_the_models_positions_are_cut_and_counted_and_named_once(
    reward_model_folder, tokenizer_folder, capsys
):
    """By a model with learned positions: a 65th token has none."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(tokenizer_folder)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    base = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    model = get_peft_model(base, peft_config(LoRAConfig(rank=2)), adapter_name=REWARD_ADAPTER)
    head = torch.nn.Linear(32, 1, bias=False).requires_grad_(False)
    loaded = RewardModel(model, head, tokenizer, read_manifest(reward_model_folder))

    prompt = encode_prompt(tokenizer, PROMPTS[0])
    letter = encode_text(tokenizer, "x")
    assert len(letter) == 1
    assert len(encode_text(tokenizer, "x" * 50)) == 50
    room = 64 - len(prompt) - 1
    just_fits, one_more, many_more = ("x" * count for count in (room, room + 1, 10 * room))
    whole = [*prompt, *letter * room, tokenizer.eos_token_id]
    assert loaded.encode([PROMPTS[0]], [just_fits]) == [whole]
    (expected,) = loaded.score_tokens([whole])

    assert loaded.score([PROMPTS[0]], [just_fits]) == [expected]
    assert (loaded.num_cut, capsys.readouterr().out) == (0, "")
    scores = loaded.score([PROMPTS[0]] * 3, [one_more, "xx", many_more])
    assert scores == pytest.approx([expected, scores[1], expected], abs=1e-5)
    assert scores[1] != pytest.approx(expected, abs=1e-3)
    assert capsys.readouterr().out == (
        "warning: reward model: 2 of 3 texts exceed its 64 tokens and are scored as if their "
        "replies ended there; later ones, too\n"
    )
    loaded.score([PROMPTS[0] * 20], ["x"])
    assert (loaded.num_cut, capsys.readouterr().out) == (3, "")


def test_padding_without_a_mask_does_not_change_scores(reward_model_folder, tiny_model_folder):
    loaded = load_reward_model(reward_model_folder, tiny_model_folder, CPU)
    prompts, replies = PROMPTS * 2, ["a", "b " * 30, "c " * 5, ""]
    masked = []
    for sequence in loaded.encode(prompts, replies):
        ids = torch.tensor([sequence + [0] * 20])
        mask = torch.tensor([[1] * len(sequence) + [0] * 20])
        decoder = loaded.model.get_base_model().get_decoder()
        with torch.no_grad(), active_adapter(loaded.model, REWARD_ADAPTER):
            hidden = decoder(input_ids=ids, attention_mask=mask).last_hidden_state
        masked.append(float(loaded.head(hidden[0, len(sequence) - 1])))
    assert loaded.score(prompts, replies) == pytest.approx(masked, abs=1e-5)


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
