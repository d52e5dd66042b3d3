"""The stage against a local server that plays the judge."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stages import judge_pairs
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, JudgePairsConfig
from stages.core.contracts import JudgePairsInputs
from stages.core.errors import UserError
from stages.core.feedback.pairs import PAIRS_FILE, CandidatePair, pair_id, write_pairs
from stages.core.judge import chat_endpoint
from stages.core.launch import run_stage
from stages.core.schemas import read_jsonl


def pair(reply_a, reply_b, number=0, **more):
    prompt = f"Question {number}?"
    name = pair_id(prompt, reply_a, reply_b)
    return CandidatePair(pair_id=name, prompt=prompt, reply_a=reply_a, reply_b=reply_b, **more)


def inputs(tmp_path, pairs):
    folder = tmp_path / "pairs"
    folder.mkdir(exist_ok=True)
    write_pairs(folder / PAIRS_FILE, pairs)
    return JudgePairsInputs(pairs=(make_artifact("pairs", folder),))


def settings_of(judge):
    return JudgePairsConfig.model_validate({"judge": judge})


def run(server, tmp_path, pairs, **settings):
    judge = {"url": server.url, "model": "judge-1", **settings}
    out_dir = tmp_path / "out"
    out_dir.mkdir(exist_ok=True)
    outputs, metrics = judge_pairs.run(
        settings_of(judge), inputs(tmp_path, pairs), Compute(), out_dir
    )
    return list(read_jsonl(outputs.judgments.locate())), metrics


def test_verdicts_are_those_of_both_orders(judge_server, tmp_path):
    pairs = [pair("GOOD 1", "bad"), pair("bad", "GOOD 2"), pair("bad", "worse"), pair("so", "so")]
    rows, metrics = run(judge_server, tmp_path, pairs, dollars_per_million_input_tokens=5.0)
    assert [row["pair_id"] for row in rows] == [item.pair_id for item in pairs]
    assert [row["verdict"] for row in rows] == ["a", "b", "tie", "tie"]
    assert [row["reason"] for row in rows] == ["I looked at both."] * 3 + [
        "Both replies are equal."
    ]
    assert rows[0]["answers"] == ["I looked at both.\n[[A]]", "I looked at both.\n[[B]]"]
    assert metrics == {
        "num_pairs": 4, "num_judged": 4, "num_failed": 0, "num_equal": 1,
        "verdicts/a": 1, "verdicts/b": 1, "verdicts/tie": 2,
        "questions": 6, "questions_answered_before": 0,
        "inconsistent_share": 0, "first_position_share": 0.5,
        "input_tokens": 600, "output_tokens": 60, "answers_without_usage": 0,
        "dollars": pytest.approx(0.003),
    }  # fmt: skip


def test_what_it_contradicts_itself_about_is_a_tie_that_says_so(judge_server, tmp_path):
    judge_server.answer = lambda first, second: (
        f"<think>\nhm [[B]]\n</think>\n{first} reads well.\n[[A]]"
    )
    rows, metrics = run(judge_server, tmp_path, [pair("One", "Two"), pair("Three", "Four")])
    assert [row["verdict"] for row in rows] == ["tie", "tie"]
    assert rows[0]["reason"] == (
        "It contradicts itself. In this order: One reads well. In the other order: Two reads well."
    )
    assert (metrics["inconsistent_share"], metrics["first_position_share"]) == (1.0, 1.0)


def test_gold_pairs_measure_the_judge(judge_server, tmp_path):
    pairs = [
        pair("GOOD 1", "bad", expected="a", purpose="gold"),
        pair("GOOD 2", "bad", expected="b", purpose="gold"),
        pair("bad", "worse", expected="both_bad", purpose="gold"),
        pair("bad", "GOOD 3", expected="b", purpose="gold"),
        pair("bad", "GOOD 4"),
    ]
    _, metrics = run(judge_server, tmp_path, pairs)
    assert (metrics["num_gold"], metrics["gold_accuracy"]) == (4, 0.75)
    # Wilson 1927 for 3 of 4.
    assert metrics["gold_accuracy_low"] == pytest.approx(0.3006, abs=1e-4)
    assert metrics["gold_accuracy_high"] == pytest.approx(0.9544, abs=1e-4)


def test_a_pair_that_several_are_asked_about_is_judged_once(judge_server, tmp_path):
    twin = pair("GOOD", "bad")
    rows, _ = run(judge_server, tmp_path, [twin, pair("GOOD", "bad", 1), twin])
    assert [row["verdict"] for row in rows] == ["a", "a"]
    assert rows[0]["pair_id"] == twin.pair_id
    assert len(judge_server.questions) == 4


def test_a_pair_without_a_verdict_has_no_line_and_is_warned_of(judge_server, tmp_path, capsys):
    judge_server.answer = lambda first, second: (
        "Hm \ud800." if "odd" in first else judge_server.fair(first, second)
    )
    rows, metrics = run(judge_server, tmp_path, [pair("GOOD", "odd"), pair("GOOD", "bad")])
    assert [row["verdict"] for row in rows] == ["a"]
    assert (metrics["num_judged"], metrics["num_failed"]) == (1, 1)
    assert capsys.readouterr().out == (
        "warning: no verdict on 1 of 2 pairs: its answer does not end with a verdict (1×)\n"
    )


def test_long_reasons_are_cut_and_odd_characters_written(judge_server, tmp_path):
    judge_server.answer = lambda first, second: "\ud800" + "x" * 2000 + "\n[[TIE]]"
    rows, _ = run(judge_server, tmp_path, [pair("One", "Two")])
    assert rows[0]["reason"] == "?" + "x" * 998 + "…"


def test_a_thousand_pairs_are_judged_unless_fewer_are_asked_for(judge_server, tmp_path):
    assert settings_of({"url": judge_server.url}).judge.num_prompts == 1000
    pairs = [pair("GOOD", "bad", number) for number in range(5)]
    _, metrics = run(judge_server, tmp_path, pairs, num_prompts=2)
    assert (metrics["num_pairs"], len(judge_server.questions)) == (2, 4)


def test_other_pairs_of_the_same_queue_cost_no_question_again(judge_server, tmp_path):
    pairs = [pair("GOOD", "bad", number) for number in range(3)]
    run(judge_server, tmp_path, pairs)
    _, metrics = run(judge_server, tmp_path, pairs[1:])
    assert (metrics["questions"], metrics["questions_answered_before"]) == (4, 4)
    assert len(judge_server.questions) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": ""}, "judge.url = '': give the endpoint's address"),
        ({"model": ""}, "judge.model: give the model's name"),
        ({"url": "http://127.0.0.1:9/v1"}, "no verdict on 1 of 1 pairs: ConnectError"),
    ],
)
def test_an_endpoint_that_cannot_judge_is_one_line(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(chat_endpoint, "BACKOFF_SECONDS", 0.01)
    config = settings_of({"url": "http://127.0.0.1:9/v1", "model": "m", **settings})
    given = inputs(tmp_path, [pair("One", "Two")])
    with pytest.raises(UserError) as caught:
        judge_pairs.run(config, given, Compute(), tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_pairs_are_refused(judge_server, tmp_path):
    with pytest.raises(UserError, match="no pairs to judge; sample-pairs makes some"):
        run(judge_server, tmp_path, [])


@pytest.mark.slow
def test_a_killed_process_pays_for_no_answer_twice(judge_server, tmp_path):
    pairs = [pair("GOOD", "bad", number) for number in range(6)]

    def slow(first, second):
        time.sleep(0.2)
        return judge_server.fair(first, second)

    judge_server.answer = slow
    config = settings_of({"url": judge_server.url, "model": "judge-1", "num_parallel": 1})
    given = inputs(tmp_path, pairs)
    spec = {
        "stage": "judge_pairs",
        "config": config.model_dump(mode="json"),
        "inputs": given.model_dump(mode="json"),
        "compute": Compute().model_dump(mode="json"),
    }
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec))
    process = subprocess.Popen([sys.executable, "-m", "stages", str(folder)], env=os.environ)
    answers = tmp_path / "cache" / "judge" / "answers.jsonl"
    while not answers.exists() or answers.read_text().count('"key"') < 4:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    num_answered = answers.read_text().count('"key"')
    judge_server.questions.clear()
    result = run_stage(config, given, Compute())
    assert result.metrics["questions_answered_before"] == num_answered
    assert result.metrics["verdicts/a"] == 6
    assert len(judge_server.questions) == 12 - num_answered
