"""Questions to a person, asked by suspending the run: its process ends and the GPU is free until
somebody answers on the run's page, and the run then goes on where it was."""

from typing import Any, Literal, TypeVar

import prefect.runtime
from prefect import get_run_logger, suspend_flow_run
from prefect.exceptions import Pause
from prefect.input import RunInput
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from flows.heartbeats import say_suspended
from flows.profiles import override
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

SECONDS_AN_HOUR = 3600
MAX_QUESTIONS = 20


KL_COEF: Any = Field(
    0.05, ge=0, title="KL coef", description="Weight of the KL penalty. Allowed: at least 0."
)


class BeforePPO(RunInput):
    """Whether PPO may begin with this reward model, and how far it may move the policy."""

    decision: Literal["start PPO", "stop"] = Field(
        "start PPO", title="Decision", description="stop ends the run here; its results are kept."
    )
    kl_coef: float = KL_COEF
    comment: str = Field("", title="Comment", description="Kept in the run's log.")


class Promotion(RunInput):
    """Whether the evaluated policy becomes champion."""

    decision: Literal["promote", "leave as challenger"] = Field(
        "leave as challenger",
        title="Decision",
        description="promote: it becomes the champion; else nothing changes.",
    )
    comment: str = Field("", title="Comment", description="Kept with the model version.")


Answer = TypeVar("Answer", BeforePPO, Promotion)


class StoppedByPersonError(Exception):
    """Somebody answered that the run shall end here."""


def check(config: PipelineConfig) -> None:
    """Whether questions can be asked where this run runs.

    Raises:
        UserError: only runs of a deployment can be suspended.
    """
    approval = config.approval
    if prefect.runtime.deployment.id:
        return
    for name in ("before_ppo", "promotion"):
        if getattr(approval, name) == "ask":
            others = "off" if name == "before_ppo" else "off or auto"
            raise UserError(
                f"approval.{name} = ask suspends the run, which only deployed runs can: start it "
                f"from the Prefect UI (rlhf up), or set approval.{name} to {others}"
            )


def before_ppo(config: PipelineConfig, figures: str) -> PipelineConfig:
    """Ask whether PPO may begin; return the configuration with the answer's ``kl_coef``.

    An answer that is not allowed is asked for again, with the reason.

    Args:
        figures: Markdown on the reward model, shown above the form.

    Raises:
        StoppedByPersonError: the answer is to stop.
    """
    problem = ""
    for number in range(MAX_QUESTIONS):
        question = _before_ppo(config.ppo.kl_coef, problem + figures)
        answer = _ask(question, config, f"before-ppo-{number}")
        if answer.decision == "stop":
            raise StoppedByPersonError(f"stopped before PPO. {answer.comment}".strip())
        try:  # the form does not hold the rules between settings
            return override(config, {"ppo.kl_coef": answer.kl_coef})
        except UserError as error:
            problem = f"**The last answer was refused: {error}**\n\n"
    raise UserError(f"approval before PPO: {MAX_QUESTIONS} answers in a row were refused")


def promotion(config: PipelineConfig, subject: str, report: str) -> Promotion:
    """Ask whether the policy becomes champion.

    Args:
        subject: version and opponent: an answer given for others does not count.
        report: Markdown shown above the form.
    """
    return _ask(Promotion.with_initial_data(description=report), config, f"promotion-{subject}")


# ------------------------------------------------------------------------------------ helpers


def _before_ppo(kl_coef: float, text: str) -> type[BeforePPO]:
    """The question with the configured coefficient. ``with_initial_data`` alone would drop its
    title, description and limit."""
    field = FieldInfo.merge_field_infos(KL_COEF, default=kl_coef)
    question = create_model("BeforePPO", __base__=BeforePPO, kl_coef=(float, field))
    return question.with_initial_data(description=text)


def _ask(question: type[Answer], config: PipelineConfig, key: str) -> Answer:
    """Suspend until the question is answered. When the run begins again, the answer is there."""
    hours, logger = config.approval.timeout_hours, get_run_logger()
    try:
        answer = suspend_flow_run(
            wait_for_input=question, timeout=int(hours * SECONDS_AN_HOUR), key=key
        )
    except Pause:
        say_suspended()
        logger.info(
            "A person decides now: Resume in the menu of this run's page shows the question. The "
            f"run goes on with the answer, and ends if there is none within {hours:g} hours."
        )
        raise
    logger.info(f"The answer: {answer.model_dump_json()}")
    return answer
