"""A round of feedback from outside: pairs are asked about, judged in the browser, and learned from.
What happens is started and looked up through the APIs of Prefect and MLflow, as a user would."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from flows import access
from flows.servers import TERMINAL_STATES
from stages.core.config import PipelineConfig
from tests.e2e.browser import wait
from tests.e2e.reviewer import Answers, Shown
from tests.e2e.stack import Stack

CHECKOUT = Path(__file__).resolve().parents[2]
VERDICT, STRENGTH = "Which answer is better?", "How much better?"
WATCH = "watch-feedback/watch-feedback"
FAILED = ("Failed", "Crashed", "Cancelled", "Refused")
CLEARLY = 0.3
"""Difference of scores from which on an answer is called clearly better."""

Score = Callable[[list[str], list[str]], list[float]]


def oracle() -> Score:
    """The demo's oracle."""
    spec = importlib.util.spec_from_file_location(
        "oracle", CHECKOUT / "data" / "samples" / "oracle.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    score: Score = module.score
    return score


def by_score(score: Score) -> Callable[[Shown], Answers]:
    """A judge who prefers the higher score, calls equal ones a tie, and two of nothing bad."""

    def judge(shown: Shown) -> Answers:
        score_a, score_b = score([shown.prompt] * 2, [shown.answer_a, shown.answer_b])
        if score_a == score_b:
            verdict = "Both are bad" if score_a == 0.0 else "Tie"
            return Answers({VERDICT: verdict}, {})
        strength = "Clearly" if abs(score_a - score_b) >= CLEARLY else "Slightly"
        verdict = "A is better" if score_a > score_b else "B is better"
        return Answers({VERDICT: verdict, STRENGTH: strength}, {})

    return judge


def make_champion(stack: Stack, config: PipelineConfig, seconds: float) -> str:
    """Run the chain with ``config`` and promote its policy; returns the version's number."""
    parameters = {"config": config.model_dump(mode="json")}
    end(stack, stack.start("align/cpu-demo", **parameters), seconds)
    promoted = stack.start("promote/on-cpu", mode="auto")
    end(stack, promoted, seconds)
    return stack.aliases()["champion"]


def open_round(stack: Stack, seconds: float, **parameters: Any) -> str:
    """Sample pairs from the champion's run and open a queue; returns the address of its page."""
    run = stack.start("sample-pairs/on-cpu", **parameters)
    end(stack, run, seconds)
    asked = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["review-queue"]}}}
    link = stack.api("/artifacts/filter", asked)[0]["data"]
    return str(link).partition("(")[2].rstrip(")") or str(link)


def announce_at(stack: Stack, min_new: int) -> None:
    """Have ``watch-feedback`` announce so many new judgments, as on its page in Prefect."""
    number = stack.api(f"/deployments/name/{WATCH}")["id"]
    with access.prefect_client(f"{stack.prefect}/api") as client:
        body = {"parameters": {"min_new_judgments": min_new}}
        client.patch(f"/deployments/{number}", json=body).raise_for_status()


def retraining_of(stack: Stack, deployment: str, seconds: float) -> str:
    """Count the new judgments, if the schedule has not yet; returns the run of the deployment that
    the automation then starts."""
    number = stack.api(f"/deployments/name/{deployment}")["id"]
    started = {"type": {"not_any_": ["SCHEDULED"]}}
    asked = {"flow_runs": {"deployment_id": {"any_": [number]}, "state": started}}
    watch = stack.start(WATCH)
    counted = wait(lambda: _ended(stack, watch), f"the end of {watch}", seconds)
    # Cancelled: the schedule was quicker, and a second is not let in.
    assert counted in ("Announced", "Announced already", "Cancelled"), stack.story(watch)
    begun = f"a run of {deployment} after the announcement"
    return str(wait(lambda: stack.api("/flow_runs/filter", asked), begun, seconds)[0]["id"])


def end(stack: Stack, run: str, seconds: float) -> str:
    """The name of the state in which the run ended, or waits for a person; not a failure."""

    def ended() -> str:
        name = _ended(stack, run)
        assert name not in FAILED, stack.story(run)
        return name

    return str(wait(ended, f"the end of {run}", seconds))


def promote(stack: Stack, run: str, comment: str, seconds: float) -> None:
    """Answer the question of a suspended run: its policy becomes champion."""
    answer = {"decision": "promote", "comment": comment}
    stack.api(f"/flow_runs/{run}/resume", {"run_input": answer})
    wait(lambda: stack.state(run) != "Suspended", f"the answer's arrival at {run}", seconds)
    assert end(stack, run, seconds) == "Completed", stack.story(run)


def version_tags(stack: Stack, number: str) -> dict[str, str]:
    """The tags of a version of the registered policy."""
    found = _mlflow(stack, "model-versions/get", {"name": "rlhf-policy", "version": number})
    return {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}


def trace_tags(stack: Stack, trace_id: str) -> dict[str, str]:
    """The tags of a judged pair's trace."""
    address = f"{stack.mlflow}/api/3.0/mlflow/traces/{trace_id}"
    answer = httpx.get(address, trust_env=False).raise_for_status().json()
    tags: dict[str, str] = answer["trace"]["trace_info"]["tags"]
    return tags


# ------------------------------------------------------------------------------------ helpers


def _ended(stack: Stack, run: str) -> str:
    """The state in which the run ended, or waits for a person; empty while it goes on."""
    state = stack.api(f"/flow_runs/{run}")
    name = str(state["state_name"])
    return name if state["state_type"] in TERMINAL_STATES or name == "Suspended" else ""


def _mlflow(stack: Stack, path: str, parameters: dict[str, str]) -> Any:
    address = f"{stack.mlflow}/api/2.0/mlflow/{path}"
    answer = httpx.get(address, params=parameters, trust_env=False)
    return answer.raise_for_status().json()
