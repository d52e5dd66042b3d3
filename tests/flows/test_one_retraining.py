"""Of retrainings of one pipeline that begin at once, one goes on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.states import AwaitingRetry

from flows.one_retraining import already_at_it

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]


@flow(name="retrain-alone", persist_result=False)
def retraining(pipeline: str, barrier: threading.Barrier | None = None) -> str:
    """Says which run is at it; waits until the others have looked, too."""
    other = already_at_it(pipeline)
    if barrier:
        barrier.wait(timeout=120)
    return "" if other is None else str(other.id)


def test_one_that_has_ended_and_one_of_another_pipeline_are_no_hindrance() -> None:
    @flow(name="retrain-first", persist_result=False)
    def first() -> tuple[str, str, str]:
        return retraining("pipeline a"), retraining("pipeline a"), retraining("pipeline b")

    assert first() == ("", "", "")  # each has ended before the next begins


def test_of_three_at_once_one_goes_on() -> None:
    barrier = threading.Barrier(3)
    settings = get_settings_context()

    def begin() -> str:
        with SettingsContext(profile=settings.profile, settings=settings.settings):
            return retraining("pipeline c", barrier, return_state=False)

    with ThreadPoolExecutor(3) as pool:
        outcomes = [future.result() for future in [pool.submit(begin) for _ in range(3)]]
    assert outcomes.count("") == 1
    others = {outcome for outcome in outcomes if outcome}
    assert len(others) == 1


def test_one_that_waits_for_its_next_try_is_still_at_it() -> None:
    @flow(name="retrain-crashed", persist_result=False)
    def crashed() -> str:
        import prefect.runtime

        assert already_at_it("pipeline d") is None
        return str(prefect.runtime.flow_run.id)

    flow_run_id = crashed()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)
    assert retraining("pipeline d") == flow_run_id
