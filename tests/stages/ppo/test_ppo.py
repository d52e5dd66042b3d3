"""The stage around the trainer: what it loads, what it refuses, what it leaves behind."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from stages import ppo
from stages.core.artifacts import make_artifact
from stages.core.chat import encode_prompt
from stages.core.config import Compute, LoRAConfig, PPOConfig
from stages.core.contracts import PPOInputs, PPOOutputs
from stages.core.errors import UserError
from stages.core.launch import run_stage
from stages.core.models import load_model, load_tokenizer
from stages.ppo.prompts import read_prompts

CPU = torch.device("cpu")
PROMPTS = [{"prompt": f"Where is house {n}?"} for n in range(6)]
ORACLE = "def score(prompts, completions):\n    return [len(text) / 10 for text in completions]\n"


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
    pairs = [{**row, "chosen": "In Mill Street.", "rejected": "Go away."} for row in PROMPTS]
    return PPOInputs(
        model=make_artifact("model", tiny_model_folder),
        reward_model=make_artifact("reward_model", reward_model_folder),
        prompts=make_dataset("prompts", PROMPTS, []),
        preferences=make_dataset("preferences", pairs, []),
    )


def logits(model, tokenizer):
    ids = torch.tensor([encode_prompt(tokenizer, "Where is house 1?")])
    with torch.no_grad():
        return model(ids).logits


def logged_figures(out_dir):
    """All metrics of each update, out of the last checkpoint."""
    checkpoint = torch.load(max((out_dir / "checkpoints").glob("*.pt")), weights_only=True)
    return checkpoint["progress"]["figures"]


def test_a_run_leaves_adapter_merged_model_value_model_and_history(
    inputs, tiny_model_folder, tmp_path
):
    outputs, metrics = ppo.run(config(), inputs, Compute(), tmp_path)
    assert metrics["updates"] == 2
    assert len(outputs.history.locate().read_text().splitlines()) == 2
    assert (tmp_path / "value_model" / "head.pt").exists()
    assert (tmp_path / "plots" / "training.png").exists()
    tokenizer = load_tokenizer(outputs.model.locate())
    merged = load_model(outputs.model.locate(), CPU)
    base = load_model(tiny_model_folder, CPU)
    plain = logits(base, tokenizer)
    adapted = PeftModel.from_pretrained(base, outputs.adapter.locate()).eval()
    torch.testing.assert_close(
        logits(merged, tokenizer), logits(adapted, tokenizer), atol=1e-3, rtol=1e-3
    )
    assert not torch.allclose(logits(merged, tokenizer), plain, atol=1e-3)


def test_full_fine_tuning_leaves_whole_models_and_no_adapter(inputs, tiny_model_folder, tmp_path):
    settings = {"finetuning": "full", "learning_rate": 1e-3}
    outputs, _ = ppo.run(config(**settings), inputs, Compute(), tmp_path)
    assert outputs.adapter is None
    tokenizer = load_tokenizer(outputs.model.locate())
    trained = logits(load_model(outputs.model.locate(), CPU), tokenizer)
    base = logits(load_model(tiny_model_folder, CPU), tokenizer)
    assert not torch.allclose(trained, base, atol=1e-3)
    load_model(tmp_path / "value_model", CPU)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "dpo"])
@pytest.mark.slow
def test_the_other_algorithms_leave_the_same(inputs, algorithm, tmp_path):
    settings = {"num_generations": 2, "num_mini_batches": 1, "num_ppo_epochs": 1}
    outputs, _ = ppo.run(config(algorithm=algorithm, **settings), inputs, Compute(), tmp_path)
    load_model(outputs.model.locate(), CPU)
    assert outputs.adapter is not None
    rows = [json.loads(line) for line in outputs.history.locate().read_text().splitlines()]
    assert len(rows) == (0 if algorithm == "dpo" else 2)


def test_two_runs_have_equal_digests(inputs, tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outputs, _ = ppo.run(config(), inputs, Compute(), tmp_path / name)
        runs.append([outputs.adapter.digest, outputs.model.digest, outputs.history.digest])
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize("finetuning", ["lora", "full"])
def test_two_ranks_do_what_one_does(inputs, finetuning, tmp_path):
    """Through torchrun, exchanging by gloo; up to the rounding of sums taken in another order."""
    settings = config(finetuning=finetuning, learning_rate=1e-3, total_episodes=24)
    two = Compute(device="cpu", num_processes=2, num_threads=1)
    found = []
    for outputs in (
        ppo.run(settings, inputs, Compute(device="cpu"), tmp_path)[0],
        PPOOutputs.model_validate(run_stage(settings, inputs, two).outputs),
    ):
        rows = [json.loads(line) for line in outputs.history.locate().read_text().splitlines()]
        found.append((rows, load_model(outputs.model.locate(), CPU)))
    (one_history, one_model), (two_history, two_model) = found
    assert len(one_history) == 3
    for row, other in zip(one_history, two_history, strict=True):
        assert row == pytest.approx(other, abs=1e-4)
    for one, other in zip(one_model.parameters(), two_model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_several_scorers_are_weighted(inputs, tmp_path):
    (tmp_path / "oracle.py").write_text(ORACLE)
    scorers = {"length": f"{tmp_path}/oracle.py:score"}
    artifacts = {"length": make_artifact("scorer", tmp_path / "oracle.py")}
    both = inputs.model_copy(update={"scorers": artifacts})
    (tmp_path / "out").mkdir()
    weights = {"length": 0.5, "reward_model": -2.0}
    settings = {"scorers": scorers, "scorer_weights": weights, "clip_score": 1000.0}
    ppo.run(config(**settings), both, Compute(), tmp_path / "out")
    for row in logged_figures(tmp_path / "out"):
        length, own = row["scores/length"], row["scores/reward_model"]
        # 6 tokens of the tiny model are some 20 characters; the oracle counts tens of them.
        assert 0.2 < length < 6
        assert abs(own) > 0.01
        assert row["objective/scores"] == pytest.approx(0.5 * length - 2 * own, abs=1e-4)


def test_a_reward_model_of_another_base_is_refused(inputs, tmp_path):
    other = inputs.model.model_copy(update={"digest": "0" * 64})
    with pytest.raises(UserError, match="trained on another SFT model"):
        ppo.run(config(), inputs.model_copy(update={"model": other}), Compute(), tmp_path)


def test_more_processes_than_replies_are_refused_before_anything_is_loaded(inputs, tmp_path):
    with pytest.raises(UserError) as refusal:
        ppo.run(config(), inputs, Compute(num_processes=9), tmp_path)
    assert str(refusal.value) == (
        "compute.num_processes (9) exceeds ppo.batch_size (8), so that a process would have no "
        "reply to sample; lower the one or raise the other"
    )
    assert not list(tmp_path.iterdir())


def test_prompts_that_do_not_fit_are_counted_and_dropped(
    inputs, make_dataset, tiny_model_folder, tmp_path, capsys
):
    rows = [*PROMPTS, {"prompt": "x " * 200}]
    tokenizer = load_tokenizer(tiny_model_folder)
    path = make_dataset("prompts", rows, []).locate() / "train.jsonl"
    prompts = read_prompts(path, tokenizer, config(), longest=100)
    assert prompts.prompts == [row["prompt"] for row in PROMPTS]
    assert prompts.ids == [encode_prompt(tokenizer, prompt) for prompt in prompts.prompts]
    assert "1 of 7 prompts are empty or over-long, dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_prompt_length": 3},
            r"6 of 6 prompts exceed ppo\.max_prompt_length = 3 tokens; raise it",
        ),
        (
            {"max_completion_length": 250},
            r"6 of 6 prompts exceed the model's room = 5 tokens",
        ),
        (
            {"max_completion_length": 5000},
            r"ppo\.max_completion_length = 5000 leaves no room for a prompt",
        ),
    ],
)
def test_too_many_prompts_that_do_not_fit_end_the_run(inputs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        ppo.run(config(**changes), inputs, Compute(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_mini_batches": 3}, "batch_size .8. must be divisible by num_mini_batches .3."),
        ({"total_episodes": 4}, "total_episodes .4. must be at least batch_size .8."),
        ({"scorer_weights": {"oracle": 1.0}}, "'oracle', which is not in scorers"),
        ({"scorer_weights": {"reward_model": 0.0}}, "at least one must not be 0"),
        ({"guard": {"scorer": "oracle"}}, "guard.scorer 'oracle' is not in scorers"),
        (
            {
                "scorers": {"oracle": "o.py:score"},
                "scorer_weights": {"oracle": 1.0},
                "guard": {"scorer": "oracle"},
            },
            "what is optimised cannot guard",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_before_anything_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_every_place_in_the_code_that_the_readme_names_exists():
    folder = Path(ppo.__file__).parent
    text = (folder / "README.md").read_text()
    places = set(re.findall(r"`(\w+\.py):(\w+)`", text))
    assert len(places) > 15
    for file, function in places:
        candidates = (folder / file, folder.parent / "core" / file)
        path = next(path for path in candidates if path.exists())
        assert f"def {function}(" in path.read_text(), (file, function)


def test_every_metric_that_the_readme_names_is_logged_and_the_other_way_round(inputs, tmp_path):
    ppo.run(config(), inputs, Compute(), tmp_path)
    logged = set(logged_figures(tmp_path)[0])
    text = (Path(ppo.__file__).parent / "README.md").read_text()
    table = text.partition("## Metrics")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+/\w+)`", table))
    assert named <= logged
    left_out = {name for name in logged - named if not name.startswith(("scores/", "loss/"))}
    assert left_out == {
        "lr", "update", "val/num_tokens", "objective/scores_std", "objective/non_score_reward"
    }  # fmt: skip
