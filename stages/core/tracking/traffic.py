"""Prompts that people really gave: the inputs of traces that an application logged to MLflow."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.core.errors import UserError
from stages.core.schemas import parse_row, prompt_key
from stages.core.tracking.client import PatientClient

MAX_TRACES = 20_000
"""The newest of an experiment."""
PAGE_SIZE = 100
PAIR_TAG = "rlhf.pair_id"
"""On traces that show a pair to a reviewer: these are not traffic."""
USUAL_NAMES = ("messages", "prompt", "question", "query", "input", "inputs", "instruction", "text")
"""Of the input that holds the prompt."""

Prompt = str | list[dict[str, str]]


def traffic_prompts(experiment: str) -> list[Prompt]:
    """The different prompts among the inputs of an experiment's traces, the newest first, personal
    data replaced by placeholders such as [EMAIL].

    Raises:
        UserError: there is no such experiment, or none of its traces has a prompt.
    """
    # Slow to import, and seldom needed.
    from stages.core.personal_data import KINDS, redact

    client = PatientClient()
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        raise UserError(
            f"traffic: no MLflow experiment is called {experiment!r}; name the one that your "
            "application logs its traces to"
        )
    prompts: dict[str, Prompt] = {}
    num_traces = 0
    for inputs in _inputs(client, found.experiment_id):
        num_traces += 1
        prompt = prompt_of(inputs)
        if prompt is None:
            continue
        if isinstance(prompt, str):
            prompt = redact(prompt, KINDS, [])
        else:
            prompt = [
                {**message, "content": redact(message["content"], KINDS, [])} for message in prompt
            ]
        prompts.setdefault(prompt_key("prompts", {"prompt": prompt}), prompt)
    if not prompts:
        raise UserError(
            f"traffic: none of {num_traces} traces of experiment {experiment!r} has a prompt: the "
            f"first span's inputs must be text, or have one of {', '.join(USUAL_NAMES)}"
        )
    return list(prompts.values())


def prompt_of(inputs: Any) -> Prompt | None:
    """The prompt in a span's inputs: text, or messages up to the last user's; None where there is
    none."""
    if isinstance(inputs, Mapping):
        named = [inputs[name] for name in USUAL_NAMES if inputs.get(name)]
        value = next(iter(named), next(iter(inputs.values())) if len(inputs) == 1 else None)
        return prompt_of(value)
    if isinstance(inputs, list):
        users = [place for place, turn in enumerate(inputs) if _role(turn) == "user"]
        inputs = inputs[: users[-1] + 1] if users else None
    try:
        prompt: Prompt = parse_row("prompts", {"prompt": inputs})["prompt"]
    except ValueError:
        return None
    return prompt


# ------------------------------------------------------------------------------------ helpers


def _inputs(client: PatientClient, experiment_id: str) -> Iterator[Any]:
    """What each trace's first span was given, the newest traces first."""
    token, count = None, 0
    while count < MAX_TRACES:
        page = client.search_traces(
            locations=[experiment_id],
            order_by=["timestamp_ms DESC"],
            max_results=PAGE_SIZE,
            page_token=token,
        )
        for trace in page:
            if PAIR_TAG not in trace.info.tags and trace.data.spans:
                first = min(trace.data.spans, key=lambda span: span.parent_id is not None)
                yield first.inputs
        count += len(page)
        token = page.token
        if not token:
            return


def _role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, Mapping) else None
