"""The flow ``promote``: a registered policy becomes champion, if a person says so."""

from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Cancelled

from flows import approval
from flows.profiles import validated
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.form import parameter


@flow(name="promote", flow_run_name="promote {version}", persist_result=False)
@refusals_as_states
def promote(
    version: Annotated[str, parameter("Version")] = "challenger",
    mode: Annotated[Literal["ask", "auto"], parameter("Mode")] = "ask",
    timeout_hours: Annotated[float, parameter("Timeout hours", gt=0)] = 72.0,
) -> Any:
    """Give the alias champion to a version of the registered model rlhf-policy.

    Args:
        version: Alias or number of the version.
        mode: ask suspends the run until a person decides on the run's page; auto does it at once.
        timeout_hours: A question that nobody answers ends the run after this time, hours; above 0.

    Raises:
        UserError: there is no such version.
    """
    approvals = {"promotion": mode, "timeout_hours": timeout_hours}
    config = validated({"approval": approvals})
    approval.check(config)
    tags = tracking.version_tags(version)
    figures = "\n".join(
        f"| {name} | {value} |"
        for name, value in sorted(tags.items())
        if name != "version" and _is_number(value)
    )
    text = f"`rlhf-policy` version {tags['version']}\n\n| figure | value |\n|---|---|\n{figures}\n"
    comment = "promoted without a question (mode = auto)"
    if mode == "ask":
        answer = approval.promotion(config, text)
        comment = answer.comment
        if answer.decision != "promote":
            return Cancelled(message=f"left as it is. {comment}".strip())
    number = tracking.promote(tags["version"], comment)
    create_markdown_artifact(
        f"Champion now: {text}\n{comment}\n", key="promotion", description="Promotion"
    )
    return {"version": float(number)}


# ------------------------------------------------------------------------------------ helpers


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
