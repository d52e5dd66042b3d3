"""MLflow's experimental API of review queues, questions and traces, as 3.17 has it.

Every call goes through here: what an upgrade removes or renames is found before it is used, said in
one line, and mended in one place.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from stages.core.errors import UserError
from stages.core.tracking.client import mlflow, patiently, set_up

TESTED_VERSION = "3.17.2"
PAGE_SIZE = 500
"""Rows a request: the most that MLflow gives of traces."""
NEEDED = {
    "mlflow.genai.label_schemas:create_label_schema": (
        "name", "type", "input", "instruction", "enable_comment", "experiment_id",
    ),
    "mlflow.genai.label_schemas:list_label_schemas": (
        "experiment_id", "max_results", "page_token",
    ),
    "mlflow.genai.label_schemas:update_label_schema": ("schema_id", "instruction"),
    "mlflow.genai.label_schemas:InputCategorical": ("options",),
    "mlflow.genai.label_schemas:InputText": (),
    "mlflow.genai.review_queues:create_review_queue": (
        "name", "queue_type", "users", "schema_ids", "experiment_id",
    ),
    "mlflow.genai.review_queues:list_review_queues": (
        "experiment_id", "max_results", "page_token",
    ),
    "mlflow.genai.review_queues:update_review_queue": ("queue_id", "name", "users"),
    "mlflow.genai.review_queues:add_items_to_review_queue": ("queue_id", "item_ids"),
    "mlflow.genai.review_queues:list_review_queue_items": (
        "queue_id", "max_results", "page_token",
    ),
    "mlflow.genai.review_queues:set_review_queue_item_status": (
        "queue_id", "item_id", "status",
    ),
    "mlflow.tracing.client:TracingClient.start_trace": ("trace_info",),
    "mlflow.tracing.client:TracingClient.log_spans": ("location", "spans"),
    "mlflow.tracing.client:TracingClient.search_traces": (
        "locations", "filter_string", "max_results", "order_by", "page_token", "include_spans",
    ),
    "mlflow.tracing.client:TracingClient.log_assessment": ("trace_id", "assessment"),
    "mlflow.tracing.client:TracingClient.delete_assessment": ("trace_id", "assessment_id"),
    "mlflow.tracing.client:TracingClient.delete_traces": ("experiment_id", "trace_ids"),
    "mlflow.tracing.client:TracingClient.set_trace_tag": ("trace_id", "key", "value"),
    "mlflow.entities:Span.from_dict": ("data",),
    "mlflow.entities:Feedback": (
        "name", "value", "source", "rationale", "create_time_ms", "last_update_time_ms",
    ),
    "mlflow.entities:AssessmentSource": ("source_type", "source_id"),
    "mlflow.entities:TraceInfo": (
        "trace_id", "trace_location", "request_time", "state", "execution_duration",
        "request_preview", "response_preview",
    ),
    "mlflow.entities:TraceLocation.from_experiment_id": ("experiment_id",),
}  # fmt: skip
"""What is called, and the parameters that are given."""


def find(name: str) -> Any:
    """A function or class of ``NEEDED``, by the end of its name.

    Raises:
        UserError: this MLflow does not have everything that is needed.
    """
    return _everything()[name]


def ask(name: str, /, *arguments: Any, **named: Any) -> Any:
    """What a function of ``NEEDED`` returns, waited for while the server is away.

    Raises:
        UserError: MLflow, or the server, has no such function.
    """
    return _call(find(name), *arguments, **named)


def ask_traces(name: str, /, *arguments: Any, **named: Any) -> Any:
    """As ``ask``, for a method of the client for traces."""
    find(name)
    client = importlib.import_module("mlflow.tracing.client").TracingClient()
    return _call(getattr(client, name), *arguments, **named)


def pages(page: Callable[..., Any], **named: Any) -> Iterator[Any]:
    """All rows of a list that comes in pages; ``page`` takes max_results and page_token."""
    token = None
    while True:
        rows = page(max_results=PAGE_SIZE, page_token=token, **named)
        yield from rows
        token = rows.token
        if not token:
            return


def look_up(needed: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """What ``needed`` names, by the end of the names.

    Raises:
        UserError: something is missing, or does not take what it is given.
    """
    found = {}
    for place, parameters in needed.items():
        module, _, path = place.partition(":")
        try:
            value: Any = importlib.import_module(module)
            for part in path.split("."):
                value = getattr(value, part)
            known = inspect.signature(value).parameters
        except (ImportError, AttributeError, ValueError):
            raise _unlike(path) from None
        if missing := [name for name in parameters if name not in known]:
            raise _unlike(f"{path}({missing[0]})")
        found[path.rsplit(".", 1)[-1] if "TracingClient" in path else path] = value
    return found


@cache
def _everything() -> dict[str, Any]:
    set_up()
    return look_up(NEEDED)


def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return patiently(function, *arguments, **named)
    except NotImplementedError:
        raise _unlike(function.__name__) from None
    except mlflow.exceptions.MlflowException as error:
        if error.error_code in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"):
            raise _unlike(function.__name__) from None
        raise


def _unlike(what: str) -> UserError:
    return UserError(
        f"MLflow {mlflow.__version__} has no review queues as {TESTED_VERSION} had them ({what} is "
        f"missing): install mlflow=={TESTED_VERSION} here and on the server; judgments given so "
        "far stay in its database"
    )
