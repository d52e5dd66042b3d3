"""The stage around the trainer: what it loads, what it refuses, what it leaves behind."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from stages import ppo
from stages.core.artifacts import make_artifact
from stages.core.chat import encode_completion, encode_prompt
from stages.core.config import Compute, LoRAConfig, PPOConfig, PPOInputs
from stages.core.errors import UserError
from stages.core.logprobs import collate
from stages.core.models import load_model, load_tokenizer, padding_id, peft_config
from stages.core.scoring import attach_reward_model
from stages.ppo.rollout import POLICY

CPU = torch.device("cpu")
PROMPTS = [{"prompt": f"Where is house {n}?"} for n in range(6)]


def config(**changes) -> PPOConfig:
    settings = {
        "lora": LoRAConfig(rank=4, alpha=8),
        "total_episodes": 16,
        "batch_size": 8,
        "num_mini_batches": 2,
        "max_completion_length": 6,
    }
    return PPOConfig.model_validate(settings | changes)


@pytest.fixture
def inputs(tiny_model_folder, reward_model_folder, make_dataset) -> PPOInputs:
    return PPOInputs(
        model=make_artifact("model", tiny_model_folder),
        reward_model=make_artifact("reward_model", reward_model_folder),
        prompts=make_dataset("prompts", PROMPTS, []),
    )


def test_the_value_model_starts_as_the_reward_model(tiny_model_folder, reward_model_folder):
    tokenizer = load_tokenizer(tiny_model_folder)
    model = get_peft_model(
        load_model(tiny_model_folder, CPU), peft_config(LoRAConfig()), adapter_name=POLICY
    )
    reward_model = attach_reward_model(model, reward_model_folder, tokenizer)
    value_model = ppo.make_value_model(model, reward_model, normalize=True)
    prompt, reply = "Where is house 3?", "In Mill Street."
    completion = encode_completion(tokenizer, reply)
    # One token more, so that the last value is that of the state after the reply.
    batch = collate(
        [encode_prompt(tokenizer, prompt)], [[*completion, 0]], padding_id(tokenizer), CPU
    )
    with torch.no_grad():
        value = float(value_model(batch)[0, -1])
    expected = reward_model.normalized(reward_model.score([prompt], [reply]))[0]
    assert value == pytest.approx(expected, abs=1e-4)


def test_a_run_leaves_adapter_merged_model_value_model_and_history(
    inputs, tiny_model_folder, tmp_path
):
    outputs, metrics = ppo.run(config(), inputs, Compute(), tmp_path)
    assert metrics["updates"] == 2
    assert len(outputs.history.locate().read_text().splitlines()) == 2
    assert (tmp_path / "value_model" / "head.pt").exists()
    tokenizer = load_tokenizer(outputs.model.locate())
    merged = load_model(outputs.model.locate(), CPU)
    adapted = PeftModel.from_pretrained(
        load_model(tiny_model_folder, CPU), outputs.adapter.locate()
    ).eval()
    ids = torch.tensor([encode_prompt(tokenizer, "Where is house 1?")])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-3, rtol=1e-3)


def test_two_runs_have_equal_digests(inputs, tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outputs, _ = ppo.run(config(), inputs, Compute(), tmp_path / name)
        runs.append([outputs.adapter.digest, outputs.model.digest, outputs.history.digest])
    assert runs[0] == runs[1]


def test_a_reward_model_of_another_base_is_refused(inputs, tmp_path):
    other = inputs.model.model_copy(update={"digest": "0" * 64})
    with pytest.raises(UserError, match="trained on another SFT model"):
        ppo.run(config(), inputs.model_copy(update={"model": other}), Compute(), tmp_path)


def test_prompts_that_do_not_fit_are_named_with_the_setting(inputs, tmp_path):
    with pytest.raises(UserError, match=r"none of 6 prompts fits into ppo\.max_prompt_length = 3"):
        ppo.run(config(max_prompt_length=3), inputs, Compute(), tmp_path)
    with pytest.raises(UserError, match=r"ppo\.max_completion_length = \d+ exceeds the model's"):
        ppo.run(config(max_completion_length=5000), inputs, Compute(), tmp_path)
