"""The flow against a local server that plays the judge, and MLflow's review queues in a file."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.judge_pairs_flow import judge_pairs, stage_inputs
from stages.core import tracking
from stages.core.artifacts import data_root as root
from stages.core.config import Compute, JudgePairsConfig, ReviewQueueConfig
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.launch import run_stage

pytestmark = pytest.mark.slow


def pair(number: int, reply_a: str = "GOOD", reply_b: str = "bad", **more: Any) -> CandidatePair:
    prompt = f"Question {number}?"
    name = pair_id(prompt, reply_a, reply_b)
    return CandidatePair(pair_id=name, prompt=prompt, reply_a=reply_a, reply_b=reply_b, **more)


def settings(url: str, model: str = "judge-1") -> JudgePairsConfig:
    return JudgePairsConfig.model_validate({"judge": {"url": url, "model": model}})


@pytest.fixture
def ask_people(data_root: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """A function (pairs) that opens a queue for them and returns the queues' experiment."""
    tracking.set_up()
    experiment = request.node.name
    run_id = tracking.start_run(f"{experiment}-pairs", JudgePairsConfig(), "asking")

    def ask(*pairs: CandidatePair) -> str:
        queue = ReviewQueueConfig(experiment=experiment, name="first", reviewers=("ada",))
        tracking.open_queue(queue, pairs, run_id)
        return experiment

    return ask


def test_what_nobody_has_judged_is_judged_once_and_marked_as_ai(
    prefect_server: None, ask_people: Callable[..., str], judge_server: Any
) -> None:
    pairs = [
        pair(1),
        pair(2, "bad", "GOOD", purpose="random"),
        pair(3, expected="b", purpose="gold"),
        pair(4),
    ]
    experiment = ask_people(*pairs)
    by_ada = Judgment(
        judgment_id="", trace_id="", queue="", pair=pairs[3], verdict="b", annotator="ada",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    tracking.record_judgments(experiment, [by_ada], tracking.start_run("imports", by_ada, "import"))

    metrics = judge_pairs(settings(judge_server.url), experiment)
    assert (metrics["num_judged"], metrics["gold_accuracy"]) == (3, 0)
    assert len(judge_server.questions) == 6
    judged = [one for one in tracking.judgments(experiment) if one.annotator_kind == "ai"]
    assert {one.annotator for one in judged} == {"judge-1"}
    verdicts = {one.pair.prompt: one.verdict for one in judged}
    assert verdicts == {"Question 1?": "a", "Question 2?": "b", "Question 3?": "a"}
    assert {one.pair.purpose for one in judged} == {"chosen", "random", "gold"}
    assert {one.reason for one in judged} == {"I looked at both."}

    state = judge_pairs(settings(judge_server.url), experiment, return_state=True)
    assert state.name == "Nothing to judge"
    assert "people or judge-1 have judged all pairs" in state.message
    ask_people(*pairs, pair(5))
    assert judge_pairs(settings(judge_server.url), experiment)["num_judged"] == 1
    assert len(judge_server.questions) == 8
    assert len(tracking.judgments(experiment)) == 5


def test_a_run_killed_before_it_recorded_anything_asks_nothing_again(
    prefect_server: None, ask_people: Callable[..., str], judge_server: Any
) -> None:
    experiment = ask_people(pair(1))
    config = settings(judge_server.url)
    run_stage(config, stage_inputs(tracking.pending_pairs(experiment)), Compute())
    assert len(judge_server.questions) == 2
    assert judge_pairs(config, experiment)["num_judged"] == 1
    assert [one.verdict for one in tracking.judgments(experiment)] == ["a"]
    assert len(judge_server.questions) == 2
    assert not list((root() / "cache" / "judge").glob("pairs-*"))


def test_a_judge_that_does_not_answer_is_one_line_and_records_nothing(
    prefect_server: None, ask_people: Callable[..., str], judge_server: Any
) -> None:
    experiment = ask_people(pair(1), pair(2), pair(3))
    judge_server.status = 401
    with pytest.raises(UserError) as caught:
        judge_pairs(settings(judge_server.url), experiment)
    message = str(caught.value)
    assert message.startswith("judge_pairs: no verdict on 3 of 3 pairs: it refuses the key (HTTP")
    assert "\n" not in message
    assert tracking.judgments(experiment) == []


@pytest.mark.parametrize(
    ("url", "model", "message"),
    [
        ("", "m", "judge.url is empty: give the address of an endpoint"),
        ("http://127.0.0.1:9/v1", " ", "judge.model is empty: name the model"),
        ("http://127.0.0.1:9/v1", "m", "no MLflow experiment is called 'no-queues'"),
    ],
)
def test_what_the_user_must_mend_is_said_before_a_process_starts(
    prefect_server: None, data_root: Path, url: str, model: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        judge_pairs(settings(url, model), "no-queues")


def test_no_reviewers_queue_is_named_in_what_is_recorded(
    prefect_server: None, data_root: Path
) -> None:
    with pytest.raises(UserError, match="no reviewer's login may stand in one") as caught:
        judge_pairs(settings("http://127.0.0.1:9/v1"), "feedback", ("round 1 · ada",))
    assert "ada" not in str(caught.value)
