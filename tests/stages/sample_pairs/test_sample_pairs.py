"""The stage as a whole, on tiny models."""

import json
import shutil
from collections import Counter

import pytest

from stages import sample_pairs
from stages.core.artifacts import CHECKPOINTS, make_artifact
from stages.core.config import Compute, SamplePairsConfig
from stages.core.contracts import SamplePairsInputs
from stages.core.errors import UserError
from stages.core.feedback.pairs import is_reserved, read_pairs
from stages.sample_pairs import replies

pytestmark = pytest.mark.slow

CPU = Compute(device="cpu", micro_batch_size=8)
SHARE = 0.3
PROMPTS = [f"Where is house {n}?" for n in range(20)]


@pytest.fixture
def inputs(tiny_model_folder, reward_model_folder, tmp_path):
    """Two models that are one, a reward model that is its own guard, prompts and gold pairs."""
    model = make_artifact("model", tiny_model_folder)
    prompts, gold = tmp_path / "prompts.jsonl", tmp_path / "gold.jsonl"
    rows = [*PROMPTS, "WHERE is house 1?", "word " * 200]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in rows))
    gold.write_text(json.dumps({"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}) + "\n")
    return SamplePairsInputs(
        models={"policy": model, "sft": model},
        prompts=(make_artifact("prompts", prompts),),
        base=model,
        reward_model=make_artifact("reward_model", reward_model_folder),
        guard_model=make_artifact("reward_model", reward_model_folder),
        gold=(make_artifact("source", gold),),
    )


@pytest.fixture
def config():
    return SamplePairsConfig(
        num_pairs=12,
        random_share=SHARE,
        gold_share=0.1,
        max_completion_length=6,
        max_prompt_length=64,
        choice="margin",
    )


def _run(config, inputs, folder):
    folder.mkdir(exist_ok=True)
    outputs, metrics = sample_pairs.run(config, inputs, CPU, folder)
    return read_pairs(outputs.pairs.locate()), metrics


def test_pairs_report_and_plot(config, inputs, tmp_path):
    pairs, metrics = _run(config, inputs, tmp_path / "out")
    assert Counter(pair.purpose for pair in pairs) == {"chosen": 7, "random": 4, "gold": 1}
    assert len({pair.pair_id for pair in pairs}) == 12
    for pair in pairs:
        if pair.purpose != "gold":
            assert {pair.model_a, pair.model_b} == {"policy", "sft"}
            assert is_reserved(pair.prompt, SHARE) == (pair.purpose == "random")
            assert pair.disagreement == pytest.approx(0.0, abs=1e-6)
    assert (metrics["num_pairs"], metrics["num_prompts"]) == (12, 20)
    assert (metrics["num_prompts_left_out"], metrics["num_replies"]) == (1, 80)
    assert metrics["mean_margin_chosen"] < metrics["mean_margin_candidates"]
    report = (tmp_path / "out" / "pairs" / "report.md").read_text()
    assert "| chosen | 7 |" in report
    assert (tmp_path / "out" / "pairs" / "plots" / "candidates.png").stat().st_size > 1000


def test_what_was_asked_before_is_not_asked_again(config, inputs, tmp_path):
    first, _ = _run(config, inputs, tmp_path / "first")
    known = tmp_path / "known.txt"
    known.write_text("\n".join(pair.pair_id for pair in first))
    again = inputs.model_copy(update={"known_pairs": make_artifact("pairs", known)})
    second, metrics = _run(config, again, tmp_path / "second")
    assert not {pair.pair_id for pair in first} & {pair.pair_id for pair in second}
    assert metrics["num_gold"] == 0
    assert metrics["num_pairs_asked_before"] == 12


def test_a_killed_attempt_goes_on_with_the_models_that_had_finished(
    config, inputs, tmp_path, monkeypatch
):
    whole, _ = _run(config, inputs, tmp_path / "whole")
    calls = []
    true_load = replies.load_model

    def load_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true_load(*arguments)

    monkeypatch.setattr(replies, "load_model", load_once)
    with pytest.raises(KeyboardInterrupt):
        _run(config, inputs, tmp_path / "killed")
    assert len(list((tmp_path / "killed" / CHECKPOINTS).iterdir())) == 1
    resumed, _ = _run(config, inputs, tmp_path / "killed")
    assert len(calls) == 3  # the first model is not loaded again
    assert resumed == whole


def test_fewer_pairs_than_asked_for_are_a_warning(config, inputs, tmp_path, capsys):
    many = config.model_copy(update={"num_pairs": 500, "gold_share": 0.0})
    pairs, _ = _run(many, inputs, tmp_path / "out")
    said = capsys.readouterr().out
    assert 40 < len(pairs) <= 60  # three a prompt
    assert "warning: only" in said
    assert " of 80 replies break off after sample_pairs.max_completion_length = 6 tokens" in said
    assert "random pairs: " in said
    assert "raise sample_pairs.num_replies or temperatures, or lower num_pairs" in said


def test_without_reward_models_chance_decides_and_the_log_says_so(config, inputs, tmp_path, capsys):
    alone = inputs.model_copy(update={"reward_model": None, "guard_model": None})
    _, metrics = _run(config, alone, tmp_path / "out")
    assert "no reward model: pairs are chosen by random, not by margin" in capsys.readouterr().out
    assert not [name for name in metrics if name.startswith("mean_")]
    assert not (tmp_path / "out" / "pairs" / "plots").exists()
    one = inputs.model_copy(update={"guard_model": None})
    wish = config.model_copy(update={"choice": "disagreement"})
    _, metrics = _run(wish, one, tmp_path / "one")
    assert "no guard model: pairs are chosen by margin, not by dis" in capsys.readouterr().out
    assert "mean_margin_chosen" in metrics
    assert "mean_disagreement_chosen" not in metrics


def test_refusals_are_one_line(config, inputs, tmp_path):
    def refused(message, config=config, **changes):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with pytest.raises(UserError, match=message):
            _run(config, inputs.model_copy(update=changes), tmp_path / "out")

    one = {"policy": inputs.models["policy"]}
    single = config.model_copy(update={"num_replies": 1})
    refused("no model to reply", models={})
    refused("raise sample_pairs.num_replies, or name two models", config=single, models=one)
    refused("needs the SFT model", base=None)
    short = config.model_copy(update={"max_prompt_length": 2})
    refused("all 21 prompts exceed 2 tokens; raise sample_pairs.max_prompt_length", config=short)
    long = config.model_copy(update={"max_completion_length": 256})
    refused("leaves no room for a prompt within the model's 256 positions", config=long)
    # At a temperature near 0 both models, which are one, give one reply.
    cold = config.model_copy(update={"temperatures": (1e-4,), "gold_share": 0.0})
    refused("no pair to ask about: the replies to 20 prompts are equal", config=cold, gold=())
