"""Scorers that a user names: functions, reward models of other chains, sequence classifiers."""

import json
import shutil

import pytest
import torch

from stages.core.artifacts import make_artifact
from stages.core.errors import UserError
from stages.core.models import load_tokenizer
from stages.core.scorer_places import BASE_FILE, reward_model_base, scorer_folder_kind
from stages.core.scorers import checked, load_function_scorer, load_scorer
from stages.core.scoring import MANIFEST_FILE, load_reward_model

CPU = torch.device("cpu")
PROMPTS, REPLIES = ["What is it?", "And that?"], ["A door.", "Nobody knows."]
ONE_NUMBER = (
    "it must return one finite number for each; mend it, then the same command continues the run"
)


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_files_of_one_name_in_two_folders_do_not_mix(tmp_path):
    scores = []
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        body = f"VALUE = {value}\ndef score(prompts, completions):\n    return [VALUE] * 2\n"
        scores.append(scorer(tmp_path / folder, body))
    assert [score(PROMPTS, REPLIES) for score in scores] == [[1.0, 1.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", f"returned 1 scores for 2 replies; {ONE_NUMBER}"),
        ("[1.0, 2.0, 3.0]", f"returned 3 scores for 2 replies; {ONE_NUMBER}"),
        ("[1.0, float('nan')]", f"returned nan for the reply to 'And that?'; {ONE_NUMBER}"),
        ("[float('inf'), 1]", f"returned inf for the reply to 'What is it?'; {ONE_NUMBER}"),
        ("[1.0, 'good']", f"returned 'good' for the reply to 'And that?'; {ONE_NUMBER}"),
        ("[1.0, None]", f"returned None for the reply to 'And that?'; {ONE_NUMBER}"),
        (
            "None",
            "TypeError: 'NoneType' object is not iterable, on the reply to 'What is it?'; "
            "mend it, then the same command continues the run",
        ),
        (
            "[1 / (p == 'What is it?') for p in prompts]",
            "ZeroDivisionError: division by zero, on the reply to 'And that?'; "
            "mend it, then the same command continues the run",
        ),
        (
            "[1.0 / (len(prompts) == 1)] * 2",
            "ZeroDivisionError: float division by zero; "
            "mend it, then the same command continues the run",
        ),
    ],
)
def test_anything_but_one_finite_number_a_reply_is_refused(tmp_path, returned, message):
    score = scorer(tmp_path, f"def score(prompts, completions):\n    return {returned}\n")
    expected = f"scorer {tmp_path / 'scorer.py'}:score: {message}"
    assert refusal(score, PROMPTS, REPLIES) == expected


def test_long_prompts_are_cut_and_line_breaks_left_out():
    def bad(prompts, completions):
        raise ValueError("first\nsecond")

    dialogue = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What\nis it?"},
    ]
    assert "ValueError: first second, on the reply to 'system: Be brief. user: What is it?'" in (
        refusal(checked("bad", bad), [dialogue], ["A door."])
    )
    shown = refusal(checked("bad", bad), ["long " * 100], ["A door."]).split("'")[1]
    assert shown == ("long " * 100)[:79] + "…"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def score(:\n", "SyntaxError: invalid syntax (scorer.py, line 1)"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("score = 1\n", "score is no function"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_any_reply(tmp_path, body, message):
    shown = refusal(scorer, tmp_path, body)
    assert shown == f"scorer {tmp_path / 'scorer.py'}:score: {message}"


def test_a_missing_function_is_refused(tmp_path):
    assert "has no attribute 'score'" in refusal(scorer, tmp_path, "rate = 1\n")


@pytest.mark.parametrize("name", ["gone.py", "notes.txt"])
def test_a_missing_file_is_refused(tmp_path, name):
    shown = refusal(load_function_scorer, tmp_path / name, "score")
    assert shown == f"scorer {tmp_path / name}:score: no such Python file"


# ------------------------------------------------------------- reward models of other chains


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return load_tokenizer(tokenizer_folder)


def load(folder, tokenizer, *, normalize=True, place="my/folder"):
    return load_scorer(place, folder, CPU, tokenizer=tokenizer, normalize=normalize)


def test_a_function_is_loaded_from_its_file(tmp_path, tokenizer):
    (tmp_path / "a.py").write_text("def rate(prompts, completions):\n    return [1] * 2\n")
    score = load(tmp_path / "a.py", tokenizer, place="a.py:rate")
    assert score(PROMPTS, REPLIES) == [1.0, 1.0]


@pytest.mark.parametrize("normalize", [True, False])
def test_a_reward_model_of_another_chain_scores_on_its_own_base(
    reward_model_folder, tiny_model_folder, tokenizer, normalize, capsys
):
    score = load(reward_model_folder, tokenizer, normalize=normalize)
    alone = load_reward_model(reward_model_folder, tiny_model_folder, CPU)
    expected = alone.score(PROMPTS, REPLIES)
    expected = alone.normalized(expected) if normalize else expected
    assert score(PROMPTS, REPLIES) == pytest.approx(expected, abs=1e-5)
    assert capsys.readouterr().out == ""


def test_another_tokenizer_than_the_policys_is_said_in_one_line(
    reward_model_folder, tokenizer_folder, capsys
):
    other = load_tokenizer(tokenizer_folder)
    other.chat_template = "{{ messages[0].content }}"
    load(reward_model_folder, other)
    assert capsys.readouterr().out == (
        "scorer my/folder: tokenizer or chat template differs from the policy's; texts are "
        "tokenised again with its own\n"
    )


@pytest.fixture
def chain(reward_model_folder, tiny_model_folder, tmp_path):
    """A reward model and its base model, both to be damaged."""
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    folder = shutil.copytree(reward_model_folder, tmp_path / "reward_model")
    (folder / BASE_FILE).write_text(make_artifact("model", base).model_dump_json())
    return folder, base


def test_the_base_model_is_found_below_the_data_root(chain, tokenizer, monkeypatch, tmp_path):
    folder, base = chain
    assert json.loads((folder / BASE_FILE).read_text())["path"] == "base"
    assert reward_model_base(folder) == base
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path / "elsewhere"))
    assert refusal(load, folder, tokenizer) == (
        f"scorer my/folder: {folder}: its base model {tmp_path}/elsewhere/base is missing; restore "
        "it (the data root is $RLHF_DATA_ROOT) or train the reward model again"
    )


def test_a_base_model_that_has_changed_is_refused(chain, tokenizer):
    folder, base = chain
    (base / "additional").write_text("")
    assert refusal(load, folder, tokenizer) == (
        f"scorer my/folder: {folder}: its base model {base} is not the one it was trained on; "
        "restore it (the data root is $RLHF_DATA_ROOT) or train the reward model again"
    )


@pytest.mark.parametrize("content", [None, "{", '{"kind": "model"}'])
def test_a_damaged_base_file_is_refused(chain, tokenizer, content):
    folder, _ = chain
    (folder / BASE_FILE).unlink() if content is None else (folder / BASE_FILE).write_text(content)
    assert refusal(load, folder, tokenizer) == (
        f"scorer my/folder: {folder}: no sound base.json, which names the reward model's base "
        "model; restore it or train the reward model again"
    )


def test_a_reward_model_has_no_label_to_choose(reward_model_folder, tokenizer):
    message = "scorer my/folder:toxic: a reward model has no labels: name its folder alone"
    place = "my/folder:toxic"
    with pytest.raises(UserError) as caught:
        load(reward_model_folder, tokenizer, place=place)
    assert str(caught.value) == message


def test_a_damaged_reward_model_is_refused(chain, tokenizer):
    folder, _ = chain
    manifest = folder / MANIFEST_FILE
    body = json.loads(manifest.read_text())
    body["probes"][0]["score"] += 1.0
    manifest.write_text(json.dumps(body))
    assert "scorer my/folder: " in refusal(load, folder, tokenizer)
    assert "a probe scores" in refusal(load, folder, tokenizer)


def test_texts_longer_than_the_base_models_positions_are_refused(reward_model_folder, tokenizer):
    score = load(reward_model_folder, tokenizer)
    assert refusal(score, PROMPTS * 2, [*REPLIES, "no " * 300, "A door."]).startswith(
        "scorer my/folder: 1 of 4 texts exceed its 256 tokens (the longest has "
    )


def test_any_other_folder_is_refused(tiny_model_folder, reward_model_folder, tokenizer, tmp_path):
    for folder in (tiny_model_folder, tmp_path):
        assert refusal(load, folder, tokenizer) == (
            f"scorer my/folder: {folder}: no reward model: neither reward_model.json, which the "
            "stage reward_model writes, nor a config.json whose architecture ends in "
            "ForSequenceClassification"
        )
    assert scorer_folder_kind(reward_model_folder) == "reward_model"
