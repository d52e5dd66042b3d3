"""The whole loop of feedback once: does a person's word make the next model better?

    python tests/benchmarks/feedback_loop.py [--demo DATA_ROOT] [--judgments 200] [--few 40]
        [--set key=value …]

A team has few preferences (``--few`` of the demo's 4,000), so its reward model knows little; the
policy trained on that is champion. Then pairs of replies of champion and SFT model are asked about,
and a scripted reviewer answers all of them in a headless Chromium, by the demo's oracle, from what
is written on the page. ``watch-feedback`` counts, its event starts ``retrain``, and the new policy
meets the champion. Stages that ``--demo``, the data root of a finished demo, has are reused.

Prints the figures as a table and, as the last line, one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flows.environment import prepare
from flows.profiles import cpu_demo, override
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.feedback.judgments import Judgment
from tests.e2e import rounds
from tests.e2e.browser import browser
from tests.e2e.reviewer import Reviewed, review
from tests.e2e.stack import Stack, running_stack

PROFILE = "loop"
SAMPLE = "data/samples/preferences.jsonl"
SECONDS = 3600.0
"""No single run may take longer."""
INTERVALS = ("", "_low", "_high")


def configuration(root: Path, few: int, settings: list[str]) -> PipelineConfig:
    """The demo with few preferences, gone through often enough to learn something from them."""
    lines = (rounds.CHECKOUT / SAMPLE).read_text(encoding="utf-8").splitlines()[:few]
    preferences = root / "few.jsonl"
    preferences.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return override(
        cpu_demo(),
        {
            "profile": PROFILE,
            "collect.preferences.paths": [str(preferences)],
            "reward_model.num_epochs": 4.0,
            "guard_model.num_epochs": 8.0,
            "approval.promotion": "ask",
            **dict(setting.split("=", 1) for setting in settings),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, help="data root of a finished demo, to reuse")
    parser.add_argument("--judgments", type=int, default=200)
    parser.add_argument("--few", type=int, default=40, help="preferences before anybody is asked")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--screenshots", type=Path, default=None)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="feedback-loop-"))
    if options.demo:
        shutil.copytree(options.demo / "runs", root / "runs", ignore=_not_this_machine)
    prepare()
    config = configuration(root, options.few, options.set)
    (root / "loop.json").write_text(config.model_dump_json(), encoding="utf-8")
    yearly = ["--name", PROFILE, "--cron", "0 4 1 1 *", "--config", str(root / "loop.json")]
    times: dict[str, float] = {}
    with running_stack(root, yearly) as stack:
        os.environ["MLFLOW_TRACKING_URI"] = stack.mlflow
        with _timed(times, "champion"):
            start = {"approval.promotion": "off", "evaluate.gate.action": "warn"}
            start |= {"reward_model_card.gate.action": "warn"}
            champion = rounds.make_champion(stack, override(config, start), SECONDS)
        rounds.announce_at(stack, options.judgments)
        with _timed(times, "sample pairs"):
            address = rounds.open_round(
                stack,
                SECONDS,
                config={"num_pairs": options.judgments, "max_completion_length": 40},
                earlier_run=f"{tracking.POLICY}@champion",
            )
        with _timed(times, "judge"):
            reviewed = _judge(address, options.screenshots)
        with _timed(times, "retrain"):
            run = rounds.retraining_of(stack, f"retrain/{PROFILE}", SECONDS)
            state = rounds.end(stack, run, SECONDS)
        figures = _figures(stack, champion, state, reviewed)
        if options.screenshots:
            _shots(stack, figures["version"], options.screenshots)
    figures["seconds"] = {name: round(value, 1) for name, value in times.items()}
    _show(figures)
    print(json.dumps(figures))


# ------------------------------------------------------------------------------------ helpers


def _not_this_machine(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("machine_id")]


@contextmanager
def _timed(times: dict[str, float], name: str) -> Any:
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    yield
    times[name] = time.monotonic() - began


def _judge(address: str, screenshots: Path | None) -> list[Reviewed]:
    """All pairs of the queue, answered by the oracle."""
    folders = [screenshots] if screenshots else []
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile), folders) as page:
        return review(page, address, rounds.by_score(rounds.oracle()))


def _figures(stack: Stack, champion: str, state: str, reviewed: list[Reviewed]) -> dict[str, Any]:
    stored = tracking.judgments("feedback")
    tags = rounds.version_tags(stack, stack.aliases()["challenger"])
    runs = stack.tracked(PROFILE)
    retraining = runs[f"retrain {PROFILE} seed 0"]
    evaluation, card = _metrics(runs["evaluate"]), _metrics(runs["reward_model_card"])
    traces = [rounds.trace_tags(stack, one.trace_id) for one in stored]
    seconds = sorted(one.seconds for one in reviewed)
    return {
        "state": state,
        "gate": tags.get("gate", ""),
        "champion": champion,
        "version": stack.aliases()["challenger"],
        "judgments": len(stored),
        "verdicts": Counter(one.verdict for one in stored),
        "as_the_oracle_says": sum(_is_oracles(one) for one in stored),
        "seconds_a_judgment": {
            "median": round(statistics.median(seconds), 2),
            "95 %": round(seconds[int(0.95 * (len(seconds) - 1))], 2),
        },
        "reward_model": {
            name: {
                figure: [round(card[key], 3) for key in _keys(figure, origin) if key in card]
                for figure in ("previous_accuracy", "accuracy", "accuracy_minus_previous")
            }
            | {"pairs": card.get(f"num_pairs/{origin}")}
            for name, origin in (("random share", "feedback_human"), ("files", "files"))
        },
        "oracle": {
            name: [round(evaluation[key], 3) for key in _with_interval(name) if key in evaluation]
            for name in (
                "oracle_sft", "oracle_champion", "oracle_policy", "oracle_policy_minus_champion",
            )
        },
        "lineage": {
            "snapshot": tags.get("feedback_snapshot", ""),
            "judgments": tags.get("feedback_judgments", ""),
            "run": tags.get("parent_run") == retraining["info"]["run_id"],
            "traces": sum(
                used.get("rlhf.used_in_version") == stack.aliases()["challenger"] for used in traces
            ),
        },
    }  # fmt: skip


def _metrics(run: Mapping[str, Any]) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in run["data"].get("metrics", [])}


def _keys(figure: str, origin: str) -> list[str]:
    return [f"{figure}/{origin}{end}" for end in INTERVALS]


def _with_interval(name: str) -> list[str]:
    return [f"{name}{end}" for end in INTERVALS]


def _is_oracles(judgment: Judgment) -> bool:
    """Whether the stored verdict is the oracle's about the stored pair: what stood on the page,
    what was chosen there and what was read back are the same."""
    pair, score = judgment.pair, rounds.oracle()
    score_a, score_b = score([str(pair.prompt)] * 2, [pair.reply_a, pair.reply_b])
    if score_a == score_b:
        return judgment.verdict == ("both_bad" if score_a == 0.0 else "tie")
    return judgment.verdict == ("a" if score_a > score_b else "b")


def _shots(stack: Stack, version: str, screenshots: Path) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile), [screenshots]) as page:
        page.open(f"{stack.mlflow}/#/models/{tracking.POLICY}/versions/{version}")
        page.see("feedback_snapshot")
        page.shot("version")


def _show(figures: Mapping[str, Any]) -> None:
    for name, value in figures.items():
        rows = value.items() if isinstance(value, Mapping) else [("", value)]
        for inner, shown in rows:
            print(f"{name:<20} {inner:<30} {shown}")


if __name__ == "__main__":
    main()
