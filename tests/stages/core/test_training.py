"""What the supervised stages share around transformers' Trainer."""

import json
import math

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from stages.core.config import Compute, SFTConfig
from stages.core.errors import UserError
from stages.core.models import load_model
from stages.core.training import CHECKPOINTS, micro_batch, stop_early, train, trainer_settings

CPU = torch.device("cpu")
STEPS = 6


def config(**changes):
    settings = {"global_batch_size": 4, "learning_rate": 1e-2, "eval_steps": 2, "save_steps": 2}
    return SFTConfig.model_validate(settings | changes)


# ------------------------------------------------------------------------------------- the batch


@pytest.mark.parametrize(
    ("global_batch_size", "micro_batch_size", "num_processes", "expected"),
    [
        (32, 16, 1, 16),
        (32, 64, 1, 32),  # never more than the batch itself
        (12, 5, 1, 4),  # the largest that divides
        (7, 4, 1, 1),
        (32, 16, 4, 8),
        (6, 6, 2, 3),
    ],
)
def test_the_micro_batch_divides_each_ranks_share(
    global_batch_size, micro_batch_size, num_processes, expected
):
    compute = Compute(micro_batch_size=micro_batch_size, num_processes=num_processes)
    assert micro_batch(global_batch_size, compute) == expected


def test_the_global_batch_is_the_same_on_every_machine(tmp_path):
    for micro_batch_size in range(1, 20):
        for num_processes in (1, 2, 3):
            compute = Compute(micro_batch_size=micro_batch_size, num_processes=num_processes)
            settings = trainer_settings(config(global_batch_size=12), compute, tmp_path)
            micro = settings["per_device_train_batch_size"]
            assert micro <= micro_batch_size
            assert micro * settings["gradient_accumulation_steps"] * num_processes == 12


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused():
    with pytest.raises(
        UserError, match=r"global_batch_size \(10\) is not divisible by compute.num"
    ):
        micro_batch(10, Compute(num_processes=4))


def test_the_settings_are_those_that_transformers_understands(tmp_path):
    args = TrainingArguments(**trainer_settings(config(warmup_share=0.1), Compute(), tmp_path))
    assert args.report_to == []
    assert args.get_warmup_steps(200) == 20
    assert args.seed == args.data_seed == 0


# -------------------------------------------------------------------------------- early stopping


def test_without_patience_nothing_stops_early():
    assert stop_early(config(), 0) == ({}, [])


def test_with_patience_the_best_model_is_kept():
    settings, callbacks = stop_early(config(), 3)
    assert settings["metric_for_best_model"] == "eval_loss"
    assert callbacks[0].early_stopping_patience == 3


def test_a_checkpoint_must_fall_on_each_best_evaluation():
    with pytest.raises(
        UserError, match=r"sft.save_steps \(3\) must be a multiple of sft.eval_step"
    ):
        stop_early(config(save_steps=3), 1)


class Worsening(Trainer):
    """Its held-out loss rises from evaluation to evaluation."""

    def evaluate(self, *args, **kwargs):
        metrics = {"eval_loss": float(self.state.global_step)}
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


@pytest.mark.parametrize("killed_at", [None, 3, 5])
def test_a_continued_run_stops_as_early_as_the_straight_one(tiny_model_folder, tmp_path, killed_at):
    best_settings, callbacks = stop_early(config(num_epochs=2), patience=2)

    def trainer():
        return make_trainer(
            tiny_model_folder, tmp_path, Worsening, best_settings, callbacks, num_epochs=2
        )

    if killed_at:
        killed = trainer()
        killed.add_callback(Kill(killed_at))
        with pytest.raises(KeyboardInterrupt):
            train(killed, tmp_path)
        best_settings, callbacks = stop_early(config(num_epochs=2), patience=2)
    last = trainer()
    train(last, tmp_path)
    # The best is that of step 2; those of 4 and 6 are worse.
    assert last.state.global_step == 6


# ------------------------------------------------------------------------------------- training


def make_trainer(
    folder, out_dir, trainer_class=Trainer, best_settings=None, callbacks=(), **changes
):
    """A Trainer that takes six steps over 24 short sequences, with dropout that draws at random."""
    set_seed(0)
    model = load_model(folder, CPU)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    rows = torch.randint(3, 500, (24, 8), generator=torch.Generator().manual_seed(0)).tolist()
    data = Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])
    settings = trainer_settings(
        config(**changes), Compute(device="cpu", micro_batch_size=2), out_dir
    )
    return trainer_class(
        model=model,
        args=TrainingArguments(**settings, **(best_settings or {})),
        train_dataset=data,
        eval_dataset=data,
        callbacks=list(callbacks),
    )


class Kill(TrainerCallback):
    """Ends the training as a kill would: without a word to the Trainer."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def straight(tiny_model_folder, tmp_path_factory):
    """The weights after an undisturbed run."""
    trainer = make_trainer(tiny_model_folder, tmp_path_factory.mktemp("straight"))
    train(trainer, tmp_path_factory.mktemp("straight"))
    assert trainer.state.global_step == STEPS
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def kill_and_continue(folder, out_dir, step, damage=lambda checkpoints: None):
    """Weights of a run that was killed after ``step``, and at which step it took up again."""
    killed = make_trainer(folder, out_dir)
    killed.add_callback(Kill(step))
    with pytest.raises(KeyboardInterrupt):
        train(killed, out_dir)
    damage(out_dir / CHECKPOINTS)
    begun = []

    class Begun(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            begun.append(state.global_step)

    trainer = make_trainer(folder, out_dir)
    trainer.add_callback(Begun())
    train(trainer, out_dir)
    return trainer.model.state_dict(), begun[0]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("step", "checkpoint"), [(1, 0), (3, 2), (5, 4)])
def test_a_continued_run_equals_the_straight_one_bit_for_bit(
    tiny_model_folder, straight, tmp_path, step, checkpoint
):
    weights, begun = kill_and_continue(tiny_model_folder, tmp_path, step)
    assert begun == checkpoint
    assert equal(weights, straight)


@pytest.mark.parametrize("state", [None, "", '{"global_step": 4, "epo'])
def test_a_checkpoint_whose_writer_was_killed_is_passed_over(
    tiny_model_folder, straight, tmp_path, state
):
    def damage(checkpoints):
        path = checkpoints / "checkpoint-4" / "trainer_state.json"
        path.unlink()
        if state is not None:
            path.write_text(state)

    weights, begun = kill_and_continue(tiny_model_folder, tmp_path, 5, damage)
    assert begun == 2
    assert equal(weights, straight)


def test_another_seed_gives_other_weights(tiny_model_folder, straight, tmp_path):
    """So that the comparisons above can fail."""
    trainer = make_trainer(tiny_model_folder, tmp_path, seed=1)
    train(trainer, tmp_path)
    assert not equal(trainer.model.state_dict(), straight)


@pytest.mark.parametrize("num_epochs", [1, 2])  # shorter and longer than a logging interval
def test_a_loss_that_is_no_number_ends_the_run_with_advice(tiny_model_folder, tmp_path, num_epochs):
    trainer = make_trainer(tiny_model_folder, tmp_path, num_epochs=num_epochs, save_steps=100)
    with torch.no_grad():
        trainer.model.model.norm.weight[0] = math.nan
    with pytest.raises(UserError, match=r"the loss became nan at step \d+; lower learning_rate"):
        train(trainer, tmp_path)


def test_figures_go_to_metrics_and_progress_to_the_flow(
    tiny_model_folder, tmp_path, monkeypatch, capsys
):
    from stages.core.tracking import stage_runs

    monkeypatch.setitem(stage_runs._current, "metrics_path", tmp_path / "metrics.jsonl")
    monkeypatch.setenv("RLHF_PARENT_PID", "1")
    train(make_trainer(tiny_model_folder, tmp_path, num_epochs=2), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    by_step = [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]
    assert [step for step, _ in by_step] == [10]
    assert sum("eval_loss" in row for row in rows) == 6
    assert "train_mean_loss" in rows[-1]
    events = [
        json.loads(line.removeprefix("::progress "))
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("::progress ")
    ]
    assert (events[-1]["step"], events[-1]["total"]) == (12, 12)
    assert events[-1]["metrics"]["loss"] == pytest.approx(by_step[0][1], abs=1e-3)
