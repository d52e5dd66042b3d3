"""Questions to a person: refused where nobody could answer, asked by suspension, then checked."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from prefect.states import Cancelled

from flows import approval
from flows.profiles import cpu_demo, override
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

pytestmark = pytest.mark.usefixtures("prefect_server", "data_root")


@pytest.mark.parametrize("name", ["before_ppo", "promotion"])
def test_a_run_that_cannot_be_suspended_refuses_before_anything_runs(name: str) -> None:
    config = override(cpu_demo(), {f"approval.{name}": "ask"})
    with pytest.raises(UserError, match=rf"approval\.{name} = ask .*Prefect UI"):
        approval.check(config)


def test_without_questions_any_run_may_run() -> None:
    approval.check(override(cpu_demo(), {"approval.promotion": "auto"}))


ANSWERED: list[PipelineConfig] = []


@flow(name="asks", persist_result=False)
def asks() -> Any:
    """Asks before PPO and keeps the configuration that the answer leads to."""
    asked = {"approval.before_ppo": "ask", "ppo.guard.action": "raise_kl"}
    config = override(cpu_demo(), asked)
    try:
        ANSWERED.append(approval.before_ppo(config, "| accuracy | 0.8 |"))
    except approval.StoppedByPersonError as stop:
        return Cancelled(message=str(stop))
    return None


class Suspended:
    """A run of ``asks`` that is executed in this process whenever it is due."""

    def __init__(self, client: SyncPrefectClient, run: FlowRun) -> None:
        self.client, self.id = client, run.id

    def execute(self) -> str:
        """Run until the end or the next question; return the state's name."""
        run = self.client.read_flow_run(self.id)
        with contextlib.suppress(Pause):
            run_flow(asks, flow_run=run, return_type="state")
        return self.state()

    def state(self) -> str:
        state = self.client.read_flow_run(self.id).state
        return state.name if state else ""

    def answer(self, **answer: Any) -> None:
        resume_flow_run(self.id, run_input=answer)

    def question(self) -> str:
        """What stands above the form."""
        run = self.client.read_flow_run(self.id)
        assert run.state is not None
        keyset = run.state.state_details.run_input_keyset
        assert keyset is not None
        return str(self.client.read_flow_run_input(self.id, keyset["description"]))


@pytest.fixture
def run() -> Iterator[Suspended]:
    ANSWERED.clear()
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(asks)
        deployment = client.create_deployment(flow_id, name="asks", enforce_parameter_schema=False)
        yield Suspended(client, client.create_flow_run_from_deployment(deployment))


@pytest.mark.slow
def test_the_run_waits_and_goes_on_with_the_answer(run: Suspended) -> None:
    assert run.execute() == "Suspended"
    assert "| accuracy | 0.8 |" in run.question()
    run.answer(decision="start PPO", kl_coef=0.25, comment="fine")
    assert run.state() == "Resuming"
    assert run.execute() == "Completed"
    assert [config.ppo.kl_coef for config in ANSWERED] == [0.25]


@pytest.mark.slow
def test_an_answer_that_is_not_allowed_is_asked_for_again(run: Suspended) -> None:
    run.execute()
    with pytest.raises(RuntimeError, match="-1.0 is less than the minimum of 0"):
        run.answer(decision="start PPO", kl_coef=-1.0)  # the form knows this rule
    run.answer(decision="start PPO", kl_coef=0.0)
    assert run.execute() == "Suspended"
    assert "guard.action raise_kl doubles kl_coef, which is 0" in run.question()
    run.answer(decision="start PPO", kl_coef=0.5)
    assert run.execute() == "Completed"
    assert [config.ppo.kl_coef for config in ANSWERED] == [0.5]


def test_to_stop_is_an_answer_too(run: Suspended) -> None:
    run.execute()
    run.answer(decision="stop", comment="accuracy too low")
    assert run.execute() == "Cancelled"
    state = run.client.read_flow_run(run.id).state
    assert state is not None
    assert state.message == "stopped before PPO. accuracy too low"
    assert ANSWERED == []
