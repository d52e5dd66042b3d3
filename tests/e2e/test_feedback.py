"""From a page in the browser to the next model: people judge pairs, and a retraining that nobody
starts by hand learns from them."""

import pytest

from flows.profiles import override
from tests.e2e import rounds
from tests.e2e.reviewer import review

pytestmark = pytest.mark.slow

SECONDS = 1200.0
"""Of the longest run, on a machine that does much else."""
NUM_PAIRS = 6


@pytest.fixture(scope="module")
def config(tiny):
    """Settings of a pipeline of its own, whose policies a person promotes."""
    settings = {"profile": "loop", "approval.promotion": "ask", "sft.num_epochs": 0.5}
    return override(tiny, settings)


@pytest.fixture(scope="module")
def champion(stack, config):
    """The policy in use, which the files alone have made."""
    return rounds.make_champion(stack, override(config, {"approval.promotion": "off"}), SECONDS)


def test_judgments_become_the_next_challenger(stack, page, config, champion):
    (stack.root / "loop.json").write_text(config.model_dump_json(), encoding="utf-8")
    yearly = ["--name", "loop", "--cron", "0 4 1 1 *", "--config", str(stack.root / "loop.json")]
    stack.command("deploy", *yearly)
    rounds.announce_at(stack, NUM_PAIRS)
    sampling = {"num_pairs": NUM_PAIRS, "max_prompts": 24, "max_completion_length": 16}
    address = rounds.open_round(stack, SECONDS, config=sampling, earlier_run="rlhf-policy@champion")

    page.open(address)
    page.see("Start review", f"Needs review ({NUM_PAIRS})")
    page.shot("review queue")
    judge = rounds.by_score(rounds.oracle())
    reviewed = review(page, address, judge)
    assert len({one.shown.trace_id for one in reviewed}) == NUM_PAIRS
    page.shot("review queue done")
    page.leave()

    retraining = rounds.retraining_of(stack, "retrain/loop", SECONDS)
    assert rounds.end(stack, retraining, SECONDS) == "Suspended", stack.story(retraining)
    proposed = stack.aliases()["challenger"]
    assert proposed != champion == stack.aliases()["champion"]

    tags = rounds.version_tags(stack, proposed)
    assert tags["feedback_judgments"] == str(NUM_PAIRS)
    assert tags["compared_with"] == champion
    run = stack.tracked("loop")["retrain loop seed 0"]["info"]["run_id"]
    assert tags["parent_run"] == run
    for one in reviewed:
        used = rounds.trace_tags(stack, one.shown.trace_id)
        assert used["rlhf.used_in_run"] == run
        assert used["rlhf.used_in_version"] == proposed
    page.open(f"{stack.mlflow}/#/models/rlhf-policy/versions/{proposed}")
    page.see("challenger", "feedback_snapshot", tags["feedback_snapshot"], run)
    page.shot("version that judgments made")

    rounds.promote(stack, retraining, "people judged it", SECONDS)
    assert stack.aliases()["champion"] == proposed
