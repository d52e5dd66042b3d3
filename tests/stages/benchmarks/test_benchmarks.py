"""The benchmarks' figures, and what happens to tasks and runs that cannot be measured whole."""

import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from stages import benchmarks
from stages.benchmarks import measure as measurement
from stages.benchmarks import table, tasks
from stages.core.config import BenchmarksConfig, Compute
from stages.core.contracts import BenchmarksInputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer, save_model

CPU = torch.device("cpu")
HARNESS_SEED = 1234
"""With which the harness's own command chooses worked examples."""


def rows_of(result, task):
    return {row["metric"]: row for row in result["rows"] if row["task"] == task}


def problems_of(result):
    return {row["task"]: row["problem"] for row in result["rows"] if row["problem"]}


@pytest.fixture
def other_model_folder(tiny_model_folder, tmp_path):
    """The tiny model with other weights."""
    model = load_model(tiny_model_folder, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_model(model, load_tokenizer(tiny_model_folder), tmp_path / "other")
    return tmp_path / "other"


def definition(file, data, split, **changes):
    """A task file as somebody would write it by hand."""
    return {
        "include": str(tasks.DEFINITIONS / file),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(data)}},
        **changes,
    }


def own_files(local_data, story, folder):
    """Task files for the harness's own command, by hand."""
    passages = folder / "passages.jsonl"
    passages.write_text(
        "".join(json.dumps({"text": item}) + "\n" for item in tasks._passages(story))
    )
    subject = folder / "anatomy.jsonl"
    lines = [json.loads(line) for line in _lines(local_data / "mmlu/test.jsonl.gz")]
    kept = [line for line in lines if line["subject"] == "anatomy"]
    subject.write_text("".join(json.dumps(line) + "\n" for line in kept))
    validation = {"training_split": None}
    test = {"training_split": None, "validation_split": None, "fewshot_split": "test"}
    truthful = local_data / "truthful_qa_mc/validation.jsonl.gz"
    files = {
        "sst2": definition("glue/sst2/default.yaml", local_data / "glue/sst2/validation.jsonl.gz",
                           "validation", **validation),
        "copa": definition("super_glue/copa/default.yaml",
                           local_data / "super_glue/copa/validation.jsonl.gz", "validation",
                           **validation),
        "arc_easy": definition("arc/arc_easy.yaml", local_data / "arc_easy/test.jsonl.gz", "test",
                               **test),
        "hellaswag": definition("hellaswag/hellaswag.yaml",
                                local_data / "hellaswag/validation.jsonl.gz", "validation",
                                **validation),
        "truthfulqa_mc1": definition("truthfulqa/truthfulqa_mc1.yaml", truthful, "validation"),
        "truthfulqa_mc2": definition("truthfulqa/truthfulqa_mc2.yaml", truthful, "validation"),
        "crows_pairs_english": definition("crows_pairs/crows_pairs_english.yaml",
                                          local_data / "crows_pairs/test.jsonl.gz", "test",
                                          num_fewshot=0),
        "mmlu_anatomy": definition("mmlu/default/mmlu_anatomy.yaml", subject, "test",
                                   fewshot_split="test"),
        "perplexity_story": {
            "task": "perplexity_story",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(passages)}},
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "num_fewshot": 0,
            "metric_list": [{"metric": name} for name in
                            ("word_perplexity", "byte_perplexity", "bits_per_byte")],
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return [folder / f"{name}.yaml" for name in files]


def _lines(path):
    import gzip

    return gzip.decompress(path.read_bytes()).decode().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_fewshot", "apply_chat_template"), [(0, False), (2, False), (1, True)]
)
def test_figures_equal_those_of_the_harnesss_own_command(
    tiny_model_folder, local_data, story, measure, tmp_path, num_fewshot, apply_chat_template
):
    data = tmp_path / "data"
    shutil.copytree(local_data, data)
    (data / "mmlu/dev.jsonl.gz").unlink()  # the hand-written file has no worked examples, too
    own = tmp_path / "own"
    own.mkdir()
    files = own_files(data, story, own)
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"),
        *("--model_args", f"pretrained={tiny_model_folder},dtype=float32"),
        *("--tasks", ",".join(map(str, files)), "--limit", "6", "--batch_size", "4"),
        *("--num_fewshot", str(num_fewshot), "--output_path", str(own / "result.json")),
        *(["--apply_chat_template"] if apply_chat_template else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=own, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = own.rglob("result*.json")
    theirs = json.loads(found.read_text())["results"]

    suites = ("glue", "super_glue", "mmlu", "hellaswag", "truthfulqa", "arc", "crows_pairs",
              "perplexity")  # fmt: skip
    result, metrics = measure(
        {"model": tiny_model_folder},
        data,
        [story],
        suites=suites,
        limit=6,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        seed=HARNESS_SEED,
    )
    compared = 0
    for task, figures in theirs.items():
        ours = rows_of(result, task)
        for key, value in figures.items():
            name, _, filtered = key.partition(",")
            if not filtered or name.endswith("_stderr"):
                continue
            figure = ours[name]["values"]["model"]
            # Sums of log-probabilities differ in their last bits, as the harness's own do between
            # batch sizes; what is counted does not.
            is_count = name in ("acc", "acc_norm", "pct_stereotype") and task != "truthfulqa_mc2"
            assert figure["value"] == (value if is_count else pytest.approx(value, rel=1e-5)), key
            if (stderr := figures[f"{name}_stderr,{filtered}"]) != "N/A":
                assert figure["stderr"] == pytest.approx(stderr, rel=1e-4), key
            if task != "mmlu_anatomy":
                assert metrics[f"benchmark_{task}_{name}_model"] == figure["value"]
            compared += 1
    assert compared == 14


@pytest.mark.slow
def test_f1_and_mcc_equal_the_harnesss_with_their_standard_errors(
    tiny_model_folder, local_data, measure, tmp_path
):
    result, _ = measure({"model": tiny_model_folder}, local_data, suites=("glue",), seed=3)
    own = tmp_path / "own"
    own.mkdir()
    files = {"cola": "cola/validation.jsonl", "mrpc": "mrpc/test.jsonl.gz"}
    for name, data in files.items():
        content = definition(
            f"glue/{name}/default.yaml", local_data / "glue" / data, "validation",
            training_split=None,
        )  # fmt: skip
        (own / f"{name}.yaml").write_text(yaml.safe_dump(content))
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    with measurement.quiet():
        theirs = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(tiny_model_folder), "dtype": "float32"},
            tasks=[str(own / f"{name}.yaml") for name in files],
            task_manager=TaskManager(include_defaults=False),
            device="cpu",
            bootstrap_iters=1000,
        )["results"]
    for task, metric in (("cola", "mcc"), ("mrpc", "f1"), ("mrpc", "acc")):
        figure = rows_of(result, task)[metric]["values"]["model"]
        assert figure["value"] == theirs[task][f"{metric},none"]
        # Both draw resamples, each its own.
        expected = pytest.approx(theirs[task][f"{metric}_stderr,none"], rel=0.1)
        assert (figure["stderr"] or 0.0) == expected  # none where all answers are the same
    average = rows_of(result, "glue")["average"]
    first = ("cola", "mcc"), ("sst2", "acc"), ("mrpc", "acc")
    values = [rows_of(result, task)[metric]["values"]["model"]["value"] for task, metric in first]
    assert average["values"]["model"]["value"] == pytest.approx(sum(values) / 3)
    assert "6 of 9 tasks not measured" in average["note"]


def test_mmlu_is_asked_by_subject_with_the_worked_examples_of_dev(
    tiny_model_folder, local_data, measure
):
    result, metrics = measure(
        {"model": tiny_model_folder}, local_data, suites=("mmlu",), num_fewshot=2, limit=5
    )
    subjects = [rows_of(result, f"mmlu_{name}")["acc"] for name in ("anatomy", "virology")]
    total = rows_of(result, "mmlu")["acc"]
    assert total["num_questions"] == 10
    values = [row["values"]["model"]["value"] for row in subjects]
    assert total["values"]["model"]["value"] == pytest.approx(sum(values) / 2)
    assert total["chance"] == 0.25
    assert total["note"] == "55 of 57 tasks not measured"
    assert "subject is astronomy" in problems_of(result)["mmlu_astronomy"]
    assert tasks.EXAMPLES_FROM_QUESTIONS not in subjects[0]["note"]  # they are dev's
    assert set(metrics) == {
        f"benchmark_{task}_acc_model{end}"
        for task in ("mmlu", "mmlu_stem", "mmlu_other")
        for end in ("", "_stderr")
    }


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(
    tiny_model_folder, local_data, measure, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(local_data, data)
    (data / "arc_challenge").mkdir()
    (data / "arc_challenge/test.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    (data / "glue/rte").mkdir()
    hidden = {"sentence1": "Rain.", "sentence2": "It rains.", "label": -1}
    (data / "glue/rte/validation.jsonl").write_text(json.dumps(hidden) + "\n")
    (data / "glue/wnli").mkdir()
    (data / "glue/wnli/validation.jsonl").write_text("no JSON\n")
    result, metrics = measure(
        {"model": tiny_model_folder}, data, suites=("glue", "arc", "super_glue"), limit=2
    )
    problems = problems_of(result)
    assert problems["arc_challenge"] == (
        f"{data}/arc_challenge/test.jsonl: has no column choices; it has question, answer"
    )
    assert "record 1: its answer -1 is none of its 2 options" in problems["rte"]
    assert "wnli/validation.jsonl:1: " in problems["wnli"]
    assert "boolq: has no validation.jsonl" in problems["boolq"]
    assert not rows_of(result, "arc_challenge")[""]["values"]
    assert "benchmark_arc_easy_acc_model" in metrics
    assert not any("rte" in name or "arc_challenge" in name for name in metrics)
    assert "arc: arc_challenge is not measured: " in capsys.readouterr().out
    text = (tmp_path / "out/benchmarks/benchmarks.md").read_text()
    assert "- boolq: not measured: " in text
    assert (tmp_path / "out/benchmarks/plots/benchmarks.png").stat().st_size > 1000


def test_nothing_that_can_be_measured_is_a_result_without_figures(
    tiny_model_folder, measure, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/file").touch()
    result, metrics = measure(
        {"base": tiny_model_folder, "policy": tiny_model_folder},
        tmp_path / "empty",
        suites=("hellaswag", "glue"),
    )
    assert metrics == {}
    problems = problems_of(result)
    assert len(problems) == len(result["rows"]) == 10
    assert "hellaswag: has no validation.jsonl" in problems["hellaswag"]
    said = capsys.readouterr().out
    assert "warning: no benchmark could be measured: " in said
    text = (tmp_path / "out/benchmarks/benchmarks.md").read_text()
    assert "- hellaswag: not measured: " in text


def test_no_suite_at_all_is_refused(tiny_model_folder, local_data, measure):
    with pytest.raises(UserError, match="no benchmark is chosen"):
        measure({"model": tiny_model_folder}, local_data)


def test_a_model_that_cannot_be_loaded_leaves_the_others_their_figures(
    tiny_model_folder, local_data, measure, tmp_path, capsys
):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{}")
    models = {"base": tiny_model_folder, "sft": tmp_path / "broken", "policy": tiny_model_folder}
    result, metrics = measure(models, local_data, suites=("arc", "super_glue"), limit=2)
    row = rows_of(result, "arc_easy")["acc"]
    assert set(row["values"]) == {"base", "policy"}
    assert row["problem"].startswith("sft: ")
    assert row["differences"]["policy-base"]["value"] == 0.0
    assert "benchmark_copa_acc_policy" in metrics
    assert not any("sft" in name for name in metrics)
    assert capsys.readouterr().out.count("warning: sft is not measured: ") == 1


def test_a_task_that_raises_whatever_is_a_problem_of_its_own(
    tiny_model_folder, local_data, measure, monkeypatch
):
    evaluate = measurement.evaluate

    def fail(lm, task_dict, **options):
        if "copa" in task_dict["tasks"]:
            raise KeyError("label")
        return evaluate(lm=lm, task_dict=task_dict, **options)

    monkeypatch.setattr(measurement, "evaluate", fail)
    result, metrics = measure(
        {"model": tiny_model_folder}, local_data, suites=("super_glue", "arc"), limit=1
    )
    assert problems_of(result)["copa"] == "model: KeyError: 'label'"
    assert "benchmark_arc_easy_acc_model" in metrics


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("[…] can't allocate memory: 9")],
)
def test_memory_that_is_not_enough_ends_the_stage(
    tiny_model_folder, local_data, measure, monkeypatch, error
):
    def fail(**options):
        raise error

    monkeypatch.setattr(measurement, "evaluate", fail)
    with pytest.raises(type(error)):
        measure({"model": tiny_model_folder}, local_data, suites=("arc",))


def test_text_without_spaces_has_no_perplexity_of_words(
    tiny_model_folder, local_data, measure, tmp_path
):
    (tmp_path / "base64.txt").write_text("aGVsbG8gd29ybGQh" * 100)
    result, metrics = measure(
        {"model": tiny_model_folder}, local_data, [tmp_path / "base64.txt"], suites=("perplexity",)
    )
    rows = rows_of(result, "perplexity_base64")
    assert not rows["word_perplexity"]["values"]
    assert rows["word_perplexity"]["problem"] == "model: word_perplexity is not a finite number"
    assert {"benchmark_perplexity_base64_byte_perplexity_model",
            "benchmark_perplexity_base64_bits_per_byte_model"} == set(metrics)  # fmt: skip


def test_the_error_of_a_perplexity_close_to_the_limit_is_left_out():
    parts = torch.tensor([1e200, -1e200, 3e200], dtype=torch.float64).numpy()
    assert table._stderr(parts) is None


def test_a_text_that_is_not_utf_8_is_named_with_its_cure(
    tiny_model_folder, story, local_data, measure, tmp_path
):
    (tmp_path / "café.txt").write_bytes("Le café est là.".encode("latin-1"))
    texts = [tmp_path / "café.txt", story]
    result, metrics = measure(
        {"model": tiny_model_folder}, local_data, texts, suites=("perplexity",), limit=1
    )
    problem = problems_of(result)["perplexity_café"]
    assert problem == f"{texts[0]}: is not UTF-8; convert it: iconv -f LATIN1 -t UTF-8"
    assert "benchmark_perplexity_story_bits_per_byte_model" in metrics


def test_what_a_library_raises_while_a_task_is_made_is_a_problem_of_it(
    monkeypatch, local_data, tmp_path
):
    def fail(*rest):
        raise TypeError("no mapping")

    monkeypatch.setattr(tasks, "_local_definition", fail)
    ready, problems = tasks.prepare(("arc",), local_data, [], tmp_path, num_fewshot=-1, limit=1)
    assert not ready
    assert [item.reason for item in problems] == ["TypeError: no mapping"] * 2


def test_a_broken_line_is_a_problem_of_every_subject_of_its_file(local_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(local_data, data)
    lines = _lines(data / "mmlu/test.jsonl.gz")
    (data / "mmlu/test.jsonl.gz").unlink()
    (data / "mmlu/test.jsonl").write_text("\n".join([*lines[:12], "{broken", *lines[12:]]))
    ready, problems = tasks.prepare(("mmlu",), data, [], tmp_path, num_fewshot=-1, limit=1)
    assert not ready
    assert len(problems) == 57
    assert all("test.jsonl:13: " in problem.reason for problem in problems)


def test_names_of_texts_fit_names_of_metrics_and_stay_apart():
    files = ("a/notes (1).txt", "R&D.txt", "b/notes_1.md", "notes_1_2.txt", "c/notes 1.txt", "&.md")
    names = [source.name for source in tasks.perplexity_sources(list(map(Path, files)))]
    assert names == [
        f"perplexity_{name}"
        for name in ("notes_1", "R_D", "notes_1_2", "notes_1_2_2", "notes_1_3", "")
    ]


def test_the_error_of_cbs_f1_is_not_that_of_two_classes(tiny_model_folder, measure, tmp_path):
    """Where no answer is the third class, either."""
    rows = [{"premise": f"{n} came.", "hypothesis": "It came.", "label": n % 2} for n in range(6)]
    path = tmp_path / "eval/super_glue/cb/validation.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"base": tiny_model_folder, "policy": tiny_model_folder}
    result, _ = measure(sources, tmp_path / "eval", suites=("super_glue",))
    row = rows_of(result, "cb")["f1"]
    assert row["values"]["base"]["stderr"] is None
    assert row["differences"]["policy-base"]["stderr"] is None


@pytest.mark.slow
def test_answers_of_a_killed_stage_are_not_asked_again(
    tiny_model_folder, other_model_folder, local_data, story, measure, tmp_path, monkeypatch
):
    models = {"base": tiny_model_folder, "sft": other_model_folder}
    settings = {"suites": ("arc", "crows_pairs", "perplexity", "super_glue"), "limit": 4}
    straight, metrics = measure(models, local_data, [story], **settings)
    straight_folder = (tmp_path / "out").rename(tmp_path / "straight")
    ask, asked = measurement.ask, []

    def ask_until_killed(model, task, config):
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(task.name)
        return ask(model, task, config)

    monkeypatch.setattr(measurement, "ask", ask_until_killed)
    with pytest.raises(KeyboardInterrupt):
        measure(models, local_data, [story], **settings)
    assert len(asked) == 5
    monkeypatch.setattr(measurement, "ask", lambda *rest: asked.append(rest[1].name) or ask(*rest))
    resumed, resumed_metrics = measure(models, local_data, [story], **settings)
    assert len(asked) == 8  # four tasks a model
    assert (resumed, resumed_metrics) == (straight, metrics)
    for file in straight_folder.joinpath("benchmarks").rglob("*.*"):
        again = tmp_path / "out/benchmarks" / file.relative_to(straight_folder / "benchmarks")
        assert again.read_bytes() == file.read_bytes(), file


def test_differences_are_those_of_the_same_questions(
    tiny_model_folder, other_model_folder, local_data, story, measure
):
    models = {"base": tiny_model_folder, "sft": other_model_folder, "policy": other_model_folder}
    result, _ = measure(models, local_data, [story], suites=("truthfulqa", "perplexity"))
    for row in (
        rows_of(result, "truthfulqa_mc2")["acc"],
        rows_of(result, "perplexity_story")["bits_per_byte"],
    ):
        assert set(row["differences"]) == {"sft-base", "policy-sft", "policy-base"}
        assert row["differences"]["policy-sft"] == {"value": 0.0, "stderr": 0.0}
        values = {name: figure["value"] for name, figure in row["values"].items()}
        difference = row["differences"]["sft-base"]
        assert difference["value"] == pytest.approx(values["sft"] - values["base"])
        apart = math.hypot(*(row["values"][name]["stderr"] for name in ("sft", "base")))
        assert 0 < difference["stderr"] < apart  # the same questions are hard for both


def test_an_adapter_is_measured_on_its_base(
    tiny_model_folder, local_data, story, measure, tmp_path
):
    model = load_model(tiny_model_folder, CPU)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    save_model(merged, load_tokenizer(tiny_model_folder), tmp_path / "merged")
    before = sorted(path.name for path in tmp_path.iterdir())
    result, _ = measure(
        {"sft": tiny_model_folder, "policy": tmp_path / "adapter", "merged": tmp_path / "merged"},
        local_data,
        [story],
        bases={"policy": tiny_model_folder},
        suites=("perplexity",),
        limit=1,
    )
    values = rows_of(result, "perplexity_story")["bits_per_byte"]["values"]
    assert values["policy"]["value"] == pytest.approx(values["merged"]["value"], rel=1e-5)
    assert values["policy"]["value"] != pytest.approx(values["sft"]["value"], rel=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "out"])
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    shutil.rmtree(tmp_path / "out")
    result, metrics = measure(
        {"policy": tmp_path / "adapter"},
        local_data,
        [story],
        bases={"policy": tiny_model_folder},
        suites=("perplexity",),
        limit=2,
    )
    assert "adapter: no usable adapter on " in problems_of(result)["perplexity_story"]
    assert not metrics


def test_prompts_that_are_cut_and_options_that_are_too_long_are_said(
    tiny_model_folder, local_data, measure, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(local_data, data)
    long = {"question": "word " * 400, "choices": {"text": ["a", "b"], "label": ["A", "B"]},
            "answerKey": "A"}  # fmt: skip
    (data / "arc_challenge").mkdir()
    (data / "arc_challenge/test.jsonl").write_text(json.dumps(long) + "\n")
    line = json.loads(_lines(data / "hellaswag/validation.jsonl.gz")[0])
    line["endings"][0] = "word " * 400
    (data / "hellaswag/validation.jsonl.gz").unlink()
    (data / "hellaswag/validation.jsonl").write_text(json.dumps(line) + "\n")
    result, _ = measure({"model": tiny_model_folder}, data, suites=("arc", "hellaswag"))
    row = rows_of(result, "arc_challenge")["acc"]
    assert row["note"] == "model: 2 prompts cut to the model's length"
    assert row["values"]["model"]["stderr"] is None  # of one question
    assert "longer than the model's 256 positions" in problems_of(result)["hellaswag"]


@pytest.mark.parametrize(
    ("version", "message"),
    [(None, "need the package lm_eval: pip install"), ("0.4.9", "need lm_eval 0.4.13, and 0.4.9")],
)
def test_without_the_harness_the_cure_is_named(monkeypatch, tmp_path, version, message):
    def installed(name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    with pytest.raises(UserError, match=message) as caught:
        benchmarks.run(
            BenchmarksConfig(suites=("arc",)), BenchmarksInputs(models={}), Compute(), tmp_path
        )
    assert "pip install 'rlhf-flows[eval]'" in str(caught.value)


def test_the_hub_that_cannot_be_reached_is_asked_once(monkeypatch, tmp_path, tiny_model_folder):
    tries = []

    def refuse(path, *rest, **options):
        tries.append(path)
        raise ConnectionError(f"no route to {path}")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    ready, problems = tasks.prepare(("mmlu", "arc"), None, [], tmp_path, num_fewshot=-1, limit=1)
    assert not ready
    assert tries == ["cais/mmlu", "allenai/ai2_arc"]
    assert len(problems) == 57 + 2
    assert problems[0].reason == "cais/mmlu: cannot be read: no route to cais/mmlu"


@pytest.mark.slow
def test_real_data_is_measured(shared, tiny_model_folder, measure, tmp_path):
    suites = ("glue", "super_glue", "mmlu", "hellaswag", "truthfulqa", "arc", "crows_pairs")
    result, _ = measure({"model": tiny_model_folder}, shared / "data/eval", suites=suites, limit=2)
    measured = {row["task"] for row in result["rows"] if row["values"] and not row["is_average"]}
    assert {name for name in measured if not name.startswith("mmlu")} == {
        *("cola", "sst2", "mrpc", "rte", "boolq", "cb", "copa", "wic", "wsc", "multirc"),
        *("hellaswag", "truthfulqa_mc1", "truthfulqa_mc2", "arc_easy", "arc_challenge"),
        "crows_pairs_english",
    }
    assert len([name for name in measured if name.startswith("mmlu")]) == 57
    missing = problems_of(result)
    assert set(missing) == {"qqp", "mnli", "mnli_mismatch", "qnli", "wnli", "record"}
    assert os.fspath(Path("glue/qqp")) in missing["qqp"]
