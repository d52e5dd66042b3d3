"""Eight reviewers at once, and a server that is killed meanwhile: is each judgment there, once?

    python tests/benchmarks/feedback_load.py [--judgments 1000] [--kills 3] [--databases sqlite …]

Opens a review queue for each reviewer on a server with accounts. The reviewers answer everything by
the calls that MLflow's page makes, change their minds now and then, and submit again when the page
shows an error. Meanwhile the server is killed with SIGKILL and started again as ``rlhf up`` does.
What ``judgments`` reads afterwards is held against what the reviewers saw saved. Prints a table
with a row a database and, as the last line, one JSON object.

lost      the page said that it was saved, and ``judgments`` does not have it
doubled   ``judgments`` has more than one for a pair and reviewer
wrong     it has another answer than the last one that was saved
foreign   it has one that nobody gave
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from feedback_machine import Machine, add_accounts, count_answers, database
from feedback_reviewer import Answers, Reviewer

from flows.environment import prepare
from stages.core.config import ReviewQueueConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id

DATABASES = ("sqlite", "postgresql")
OVERLAP = 0.1
EXPERIMENT = "feedback"
COLUMNS = {
    "database": "database", "judgments": "judgments", "sent": "sent", "repeated": "repeated",
    "changed": "changed", "acknowledged": "acknowledged", "found": "found", "lost": "lost",
    "doubled": "doubled", "wrong": "wrong", "foreign": "foreign", "kills": "kills",
    "answers": "answers stored", "stored_twice": "valid twice", "seconds": "s",
    "seconds_up": "s, server up", "per_second": "per s, server up",
    "reading_seconds": "s to read",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judgments", type=int, default=1000)
    parser.add_argument("--reviewers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows = []
    for kind in options.databases:
        root = Path(tempfile.mkdtemp(prefix="feedback-"))
        try:
            with database(kind, root) as store:
                row = measure(store, root, options)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        rows.append({"database": kind, **row})
        print(json.dumps(rows[-1]), flush=True)
    widths = {name: max(len(title), 10) for name, title in COLUMNS.items()}
    print("  ".join(f"{COLUMNS[name]:>{width}}" for name, width in widths.items()))
    for row in rows:
        print("  ".join(f"{_shown(row[name]):>{width}}" for name, width in widths.items()))
    holds = all(
        row[fault] == 0 for row in rows for fault in ("lost", "doubled", "wrong", "foreign")
    )
    print(f"every judgment is there, once, with its last answer: {holds}")
    print(json.dumps({"databases": rows, "holds": holds}))


def measure(store: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let the reviewers work on a server with this database, and hold what is read against what
    they did."""
    os.environ["RLHF_DATA_ROOT"] = str(root)
    prepare()
    machine = Machine(store, root)
    try:
        names = [f"reviewer-{number}" for number in range(options.reviewers)]
        logins = add_accounts(machine.url, names)
        reviewers = hire(machine.url, logins, options)
        seconds = work(machine, reviewers, options)
        began = time.monotonic()
        found = read()
        reading = time.monotonic() - began
    finally:
        machine.end()
    said = {
        (trace, name): answers
        for name, reviewer in zip(names, reviewers, strict=True)
        for trace, answers in reviewer.diary.said.items()
    }
    counts = {
        count: sum(getattr(reviewer.diary, count) for reviewer in reviewers)
        for count in ("sent", "repeated", "changed")
    }
    from stages.core.tracking.reviews.questions import VERDICT

    answers, stored_twice = count_answers(store, VERDICT)
    return {
        "judgments": sum(reviewer.diary.num_items for reviewer in reviewers),
        "acknowledged": len(said),
        **counts,
        **compare(said, found),
        "kills": machine.kills,
        "answers": answers,
        "stored_twice": stored_twice,
        **{name: round(value, 1) for name, value in seconds.items()},
        "per_second": round(counts["sent"] / seconds["seconds_up"], 2),
        "reading_seconds": round(reading, 2),
    }


def hire(
    url: str, logins: dict[str, tuple[str, str]], options: argparse.Namespace
) -> list[Reviewer]:
    """Open the queues, and a reviewer for each, who has not begun."""
    from stages.core.tracking.client import mlflow, set_up
    from stages.core.tracking.reviews import open_queue
    from stages.core.tracking.reviews.questions import STRENGTH, STRENGTHS, VERDICT, VERDICTS
    from stages.core.tracking.reviews.queues import all_queues

    set_up()
    mlflow.set_experiment("rlhf")
    with mlflow.start_run(run_name="sample_pairs") as run:
        settings = ReviewQueueConfig(
            experiment=EXPERIMENT, name="load", reviewers=tuple(logins), overlap_share=OVERLAP
        )
        opened = open_queue(
            settings, pairs(math.ceil(options.judgments / (1 + OVERLAP))), run.info.run_id
        )
    print(f"{opened.num_pairs} pairs, {opened.num_traces} to judge, at {url}", flush=True)
    ids = {
        queue.name.rpartition(" ")[2]: queue.queue_id for queue in all_queues(opened.experiment_id)
    }
    questions = {VERDICT: tuple(VERDICTS), STRENGTH: tuple(STRENGTHS)}
    return [
        Reviewer(url, login, ids[name], questions, options.seed * 1000 + number)
        for number, (name, login) in enumerate(logins.items())
    ]


def pairs(count: int) -> list[CandidatePair]:
    made = []
    for number in range(count):
        prompt = f"What is {number} plus {number}?"
        replies = (f"It is {2 * number}.", f"I think that it may be {2 * number + 1}.")
        made.append(
            CandidatePair(
                pair_id=pair_id(prompt, *replies), prompt=prompt,
                reply_a=replies[0], reply_b=replies[1],
            )
        )  # fmt: skip
    return made


def work(
    machine: Machine, reviewers: Sequence[Reviewer], options: argparse.Namespace
) -> dict[str, float]:
    """Let all reviewers finish. The kills come at chance moments, one in each equal share of the
    work.

    Returns:
        seconds: until the last reviewer had finished; seconds_up: those of them in which the server
        answered.
    """
    chance = random.Random(options.seed)
    all_judgments = round(options.judgments)
    moments = [
        all_judgments * (number + chance.uniform(0.2, 0.8)) / options.kills
        for number in range(options.kills)
    ]
    began, away = time.monotonic(), 0.0
    for reviewer in reviewers:
        reviewer.start()
    while any(reviewer.is_alive() for reviewer in reviewers):
        machine.look_after()
        done = sum(len(reviewer.diary.said) for reviewer in reviewers)
        if moments and done >= moments[0]:
            moments.pop(0)
            machine.kill()
            killed = time.monotonic()
            machine.wait()
            away += time.monotonic() - killed
            print(
                f"killed after {done} judgments, away {time.monotonic() - killed:.0f} s", flush=True
            )
        time.sleep(0.05)
    for reviewer in reviewers:
        if reviewer.error is not None:
            raise reviewer.error
    seconds = time.monotonic() - began
    return {"seconds": seconds, "seconds_up": seconds - away}


def read() -> list[Judgment]:
    from stages.core.tracking import reviews

    return reviews.judgments(EXPERIMENT)


def compare(said: dict[tuple[str, str], Answers], found: Sequence[Judgment]) -> dict[str, int]:
    """How what was found differs from what was said, by trace and reviewer."""
    from stages.core.tracking.reviews.questions import STRENGTH, STRENGTHS, VERDICT, VERDICTS

    read = {(judgment.trace_id, judgment.annotator) for judgment in found}
    wrong = 0
    for judgment in found:
        answers = said.get((judgment.trace_id, judgment.annotator))
        right = answers is None or (
            judgment.verdict == VERDICTS[answers[VERDICT]]
            and judgment.strength == STRENGTHS[answers[STRENGTH]]
        )
        wrong += not right
    return {
        "found": len(found),
        "lost": len(said.keys() - read),
        "doubled": len(found) - len({(one.pair.pair_id, one.annotator) for one in found}),
        "wrong": wrong,
        "foreign": len(read - said.keys()),
    }


def _shown(value: Any) -> str:
    return str(value)


if __name__ == "__main__":
    main()
