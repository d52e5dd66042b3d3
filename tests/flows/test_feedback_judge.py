"""The command, from its options to what it prints."""

from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.cli import main, parser
from flows.feedback_judge import _settings
from stages.core.errors import UserError

OPTIONS = ["feedback", "judge", "--url", "http://127.0.0.1:9/v1", "--model", "judge-1"]


def test_options_are_the_judges_settings() -> None:
    more = ["--max-pairs", "20", "--parallel", "8", "--input-price", "2.5"]
    judge = _settings(parser().parse_args([*OPTIONS, *more])).judge
    assert (judge.url, judge.model) == ("http://127.0.0.1:9/v1", "judge-1")
    assert (judge.num_prompts, judge.num_parallel) == (20, 8)
    assert judge.dollars_per_million_input_tokens == 2.5
    assert _settings(parser().parse_args(OPTIONS)).judge.num_prompts == 1000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--url", "https://me:key@host/v1"], "judge.url: Give the key as RLHF_JUDGE_API_KEY, not"),
        (["--max-pairs", "0"], "judge.num_prompts: Input should be greater than or equal to 1"),
        (["--output-price", "-1"], "judge.dollars_per_million_output_tokens: Input should be"),
    ],
)
def test_what_cannot_be_is_one_line(more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _settings(parser().parse_args([*OPTIONS, *more]))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_runs_the_flow_and_says_where_nothing_is_to_be_done(
    prefect_server: None,
    data_root: Path,
    judge_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import prefect.settings

    from stages.core import tracking
    from stages.core.config import JudgePairsConfig, ReviewQueueConfig
    from stages.core.feedback.pairs import CandidatePair

    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setenv("PREFECT_API_URL", prefect.settings.PREFECT_API_URL.value())
    tracking.set_up()
    run_id = tracking.start_run("command-pairs", JudgePairsConfig(), "asking")
    pair = CandidatePair(pair_id="1", prompt="Why?", reply_a="GOOD", reply_b="bad")
    tracking.open_queue(ReviewQueueConfig(experiment="command"), [pair], run_id)
    command = ["feedback", "judge", "--url", judge_server.url, "--model", "judge-1"]
    command += ["--experiment", "command"]
    assert main(command) == 0
    assert "num judged 1" in capsys.readouterr().out
    assert [one.verdict for one in tracking.judgments("command")] == ["a"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Nothing to judge: people or judge-1 have judged all pairs." in shown
    assert len(judge_server.questions) == 2
    assert main([*command[:-1], "no-queues"]) == 2
    assert "no MLflow experiment is called 'no-queues'" in capsys.readouterr().err
