"""Prompts from the traces of an application, logged to a real store."""

import mlflow
import pytest

from stages.core import tracking
from stages.core.errors import UserError
from stages.core.tracking.traffic import prompt_of, traffic_prompts


@pytest.mark.parametrize(
    ("inputs", "prompt"),
    [
        ("Who?", "Who?"),
        ({"question": "Who?", "user": "u1"}, "Who?"),
        ({"anything": "Who?"}, "Who?"),
        ({"one": "Who?", "two": "What?"}, None),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "Hi"),
        (
            [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": "Hello"},
            ],
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        ),
        ([{"role": "tool", "content": "42"}], None),
        ([{"role": "assistant", "content": "Hello"}], None),
        ({}, None),
        ("  ", None),
        (42, None),
        (None, None),
    ],
)
def test_the_prompt_among_a_spans_inputs(inputs, prompt):
    assert prompt_of(inputs) == prompt


@pytest.mark.slow
def test_the_different_prompts_of_an_experiment_without_personal_data(tmp_path):
    tracking.set_up()
    experiment = mlflow.create_experiment("chat", artifact_location=tmp_path.as_uri())
    texts = ["Who is it?", "who is  IT?", "Write to ada.finch@example.com, please."]
    for text in texts:
        span = mlflow.start_span_no_context(
            "chat", inputs={"prompt": text}, experiment_id=experiment
        )
        mlflow.start_span_no_context("retrieve", inputs={"text": "no"}, parent_span=span).end()
        span.end()
    shown = mlflow.start_span_no_context(
        "pair", inputs={"prompt": "shown"}, experiment_id=experiment, tags={"rlhf.pair_id": "1"}
    )
    shown.end()
    other = mlflow.start_span_no_context("other", inputs={}, experiment_id=experiment)
    other.end()
    mlflow.flush_trace_async_logging()
    prompts = traffic_prompts("chat")
    assert set(prompts) == {"who is  IT?", "Write to [EMAIL], please."}
    with pytest.raises(UserError, match="traffic: no MLflow experiment is called 'nowhere'"):
        traffic_prompts("nowhere")
    mlflow.create_experiment("silent", artifact_location=tmp_path.as_uri())
    with pytest.raises(UserError, match="none of 0 traces of experiment 'silent' has a prompt"):
        traffic_prompts("silent")
