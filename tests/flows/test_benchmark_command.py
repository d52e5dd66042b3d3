"""``rlhf evaluate``: from the command line to the table."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import benchmark_command, cli, plan
from flows.profiles import override, profile
from stages.core.artifacts import StageResult, make_artifact
from stages.core.errors import UserError


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A random Llama with a tokenizer of single bytes, made in a process of its own: nothing here
    imports torch."""
    folder = tmp_path / "model"
    script = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {letter: n for n, letter in enumerate(["<pad>", "<eos>", *letters])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
).save_pretrained(sys.argv[1])
torch.manual_seed(0)
config = LlamaConfig(vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32,
                     num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256,
                     bos_token_id=None, eos_token_id=1, pad_token_id=0)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Four of COPA's questions."""
    folder = tmp_path / "eval" / "super_glue" / "copa"
    folder.mkdir(parents=True)
    row = {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I ate.", "label": 0}
    rows = [{**row, "question": ("cause", "effect")[n % 2]} for n in range(4)]
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "eval"


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that the user must mend: code 2, one line on stderr, which is returned."""
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def run(*arguments: str) -> str:
        assert cli.main(["evaluate", *arguments]) == cli.USER_ERROR
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    return run


def test_what_the_user_must_mend_is_one_line(
    refused: Callable[..., str], tmp_path: Path, data_folder: Path
) -> None:
    empty, adapter = tmp_path / "empty", tmp_path / "adapter"
    empty.mkdir()
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    local = ("--local", str(data_folder), "--suite", "superglue")
    assert "--suite glew: choose from glue, super_glue" in refused("x", "--suite", "glue,glew")
    assert "give text files with --text" in refused("x", "--suite", "perplexity")
    assert "gone: no such file or folder; give a model folder" in refused("gone", *local)
    assert "--local gone: no such folder" in refused(str(empty), "--local", "gone")
    assert "empty: holds no model" in refused(str(empty), *local)
    assert "its base is not here" in refused(str(adapter), *local).replace("  ", " ")
    (adapter / "base.json").write_text(make_artifact("model", empty).model_dump_json())
    empty.rmdir()
    assert "give it with --base FOLDER" in refused(str(adapter), *local)
    for damaged in (b"{", b"[]", b"\xff\xfe"):
        (adapter / "base.json").write_bytes(damaged)
        assert "base.json: is damaged; give the adapter's base" in refused(str(adapter), *local)


def test_options_without_effect_are_refused(
    refused: Callable[..., str], tmp_path: Path, data_folder: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/config.json").write_text("{}")
    (tmp_path / "story.txt").write_text("It rained.")
    full, local = str(tmp_path / "full"), ("--local", str(data_folder), "--suite", "arc")
    assert "--base is for adapters" in refused(full, *local, "--base", full)
    assert "--base is for adapters" in refused("rlhf-policy@champion", *local, "--base", full)
    text = str(tmp_path / "story.txt")
    assert "--text is for the suite perplexity" in refused(full, *local, "--text", text)


@pytest.mark.parametrize("option", ["--limit=-5", "--fewshot=-2", "--limit=many"])
def test_numbers_below_zero_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(["evaluate", "model", option])
    assert caught.value.code == cli.USER_ERROR
    assert "is no whole number from 0 on" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_measured_is_one_line_and_is_tried_again_with_fresh(
    model_folder: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "none").mkdir()
    command = (str(model_folder), "--local", str(tmp_path / "none"), "--suite", "arc")
    error = refused(*command)
    assert "no benchmark could be measured: " in error
    assert "arc_easy: has no test.jsonl" in error
    assert "(and 1 more); once mended, run again with --fresh" in error
    run_stage, asked = benchmark_command.run_stage, []

    def watched(*rest: Any, fresh: bool, **options: Any) -> StageResult:
        asked.append(fresh)
        return run_stage(*rest, fresh=fresh, **options)

    monkeypatch.setattr(benchmark_command, "run_stage", watched)
    refused(*command)
    refused(*command, "--fresh")
    assert asked == [False, True]


def test_the_harness_is_missed_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    config = override(profile("cpu-demo"), {"benchmarks.suites": "arc"})
    with pytest.raises(UserError, match=r"pip install 'rlhf-flows\[eval\]'"):
        plan.check(config, ["benchmarks"])


@pytest.mark.slow
def test_a_models_table_with_standard_errors_and_what_was_not_measured(
    model_folder: Path, data_folder: Path
) -> None:
    command = [
        *(sys.executable, "-m", "flows", "evaluate", str(model_folder)),
        *("--suite", "superglue", "--local", str(data_folder), "--limit", "3"),
    ]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("copa")]
    name, metric, value, stderr, chance, questions = line.split()
    assert (name, metric, chance, questions) == ("copa", "acc", "0.500", "3")
    assert 0 <= float(value) <= 1
    assert 0 <= float(stderr) <= 1
    assert "boolq: not measured: " in done.stdout
    assert "tried again with --fresh" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_figures_that_could_not_be_computed_are_dashes_in_the_table() -> None:
    row = {"suite": "super_glue", "task": "cb", "metric": "f1", "chance": None, "note": "",
           "num_questions": 5, "is_average": False, "problem": "",
           "values": {"model": {"value": 0.25, "stderr": None}}}  # fmt: skip
    console = Console(file=io.StringIO(), width=100)
    benchmark_command._print_table(console, {"rows": [row]})
    assert console.file.getvalue().split()[-6:] == ["cb", "f1", "0.250", "–", "–", "5"]
