"""What is deployed, that ``prefect.yaml`` says the same, and what a server makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from flows import deployments, feedback_watch, heartbeats
from flows.pipeline import align
from flows.profiles import PROFILES, cpu_demo
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]


def test_prefect_yaml_is_what_the_code_says() -> None:
    text = (CHECKOUT / "prefect.yaml").read_text(encoding="utf-8")
    assert text == deployments.prefect_yaml(), "run python -m flows.deployments"


def test_the_settings_that_prefect_yaml_leaves_out_are_defaults() -> None:
    written = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text(encoding="utf-8"))
    by_name = {f"{row['entrypoint']} {row['name']}": row for row in written["deployments"]}
    for name, make in PROFILES.items():
        parameters = by_name[f"flows.pipeline.align {name}"]["parameters"]
        assert PipelineConfig.model_validate(parameters["config"]) == make()


def test_each_profile_and_each_stage_is_deployed_on_its_pool() -> None:
    pools = {
        f"{item.flow_name}/{item.name}": item.work_pool_name for item in deployments.deployments()
    }
    assert pools["align/cpu-demo"] == "cpu"
    assert pools["align/single-gpu"] == "gpu"
    assert pools["retrain/retrain"] == "cpu"
    for stage in ("pretrain", "sft", "reward-model", "ppo", "evaluate"):
        assert (pools[f"{stage}/on-cpu"], pools[f"{stage}/on-gpu"]) == ("cpu", "gpu")
    assert pools["prepare-data/on-cpu"] == pools["promote/on-cpu"] == "cpu"


@pytest.mark.parametrize("line", ["30 1 * * *", "0 2 * * 0", "0 0,2 * * *", "0 1-5 * * *"])
def test_no_schedule_falls_where_clocks_change(line: str) -> None:
    with pytest.raises(UserError, match=r"between 01:00 and 03:00 clocks change"):
        deployments.check_schedule(Cron(line, timezone="Europe/Berlin"))
    deployments.check_schedule(Cron(line, timezone="UTC"))


@pytest.mark.parametrize("line", ["0 0-4 * * *", "0 */2 * * *", "0 * * * *"])
def test_no_range_of_hours_covers_them_either(line: str) -> None:
    with pytest.raises(UserError, match="clocks change"):
        deployments.check_schedule(Cron(line, timezone="Europe/Berlin"))


@pytest.mark.parametrize("line", ["0 4 * * 0", "15 0 * * *", "0 12,22 * * 1-5", "0 10 1 2 *"])
def test_other_hours_are_allowed(line: str) -> None:
    deployments.check_schedule(Cron(line, timezone="Europe/Berlin"))


@pytest.mark.parametrize(
    ("line", "timezone"), [("0 4 * *", "UTC"), ("never", "UTC"), ("0 4 * * *", "Mars/Olympus")]
)
def test_an_unreadable_schedule_is_one_line(line: str, timezone: str) -> None:
    with pytest.raises(UserError, match="schedule"):
        deployments.cron(line, timezone)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "data_root")
def test_a_server_takes_them_and_a_second_time_changes_nothing() -> None:
    more = deployments.retraining("nightly", cpu_demo(), deployments.cron("0 4 * * *", "UTC"))
    names = deployments.deploy([more])
    assert deployments.deploy([more]) == names
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("gpu").concurrency_limit == 1
        assert client.read_work_pool("cpu").concurrency_limit is None
        stored = client.read_deployment_by_name("retrain/nightly")
        assert stored.global_concurrency_limit is not None
        assert stored.global_concurrency_limit.limit == 1
        assert [item.schedule.timezone for item in stored.schedules] == ["UTC"]
        assert stored.schedules[0].active
        retrain = client.read_deployment_by_name("retrain/retrain")
        assert not retrain.schedules[0].active
        for name in (heartbeats.AUTOMATION, feedback_watch.AUTOMATION):
            assert len(client.read_automations_by_name(name)) == 1
        (automation,) = client.read_automations_by_name(feedback_watch.AUTOMATION)
        assert [action.deployment_id for action in automation.actions] == [stored.id]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "data_root")
def test_schedules_made_on_the_page_outlive_the_next_deployment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two() -> list[RunnerDeployment]:
        settings, schedule = cpu_demo(), deployments.RETRAIN_SCHEDULE
        never = deployments._deployment(align, "of no schedule", "", "cpu")
        return [never, deployments.retraining("of one", settings, schedule)]

    monkeypatch.setattr(deployments, "deployments", two)
    names = deployments.deploy()
    with get_client(sync_client=True) as client:
        never, weekly = (client.read_deployment_by_name(name) for name in names)
        assert [item.active for item in weekly.schedules] == [False]
        schedule = CronSchedule(cron="0 5 * * *", timezone="UTC")
        client.create_deployment_schedules(never.id, [(schedule, True)])
        client.update_deployment_schedule(weekly.id, weekly.schedules[0].id, active=True)
        client.pause_deployment(never.id)
        deployments.deploy()
        never, weekly = (client.read_deployment_by_name(name) for name in names)
        assert [item.schedule.cron for item in never.schedules] == ["0 5 * * *"]
        assert never.paused
        assert [item.active for item in weekly.schedules] == [True]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "data_root")
def test_a_schedule_given_on_the_command_line_is_applied_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deployments, "deployments", lambda: [])
    for line in ("0 4 * * *", "0 6 * * *"):
        schedule = deployments.cron(line, "UTC")
        (name,) = deployments.deploy([deployments.retraining("hourly", cpu_demo(), schedule)])
        with get_client(sync_client=True) as client:
            stored = client.read_deployment_by_name(name).schedules
            assert [(item.schedule.cron, item.active) for item in stored] == [(line, True)]


def test_no_deployment_takes_the_name_of_a_built_in_one() -> None:
    schedule = deployments.cron("0 4 * * *", "UTC")
    with pytest.raises(UserError, match="--name retrain: retrain/retrain is a deployment"):
        deployments.deploy([deployments.retraining("retrain", cpu_demo(), schedule)])


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "data_root")
def test_prefects_own_command_deploys_the_file() -> None:
    from prefect.settings import PREFECT_API_URL

    deployments.make_pools()
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "retrain"]
    ended = subprocess.run(
        command,
        cwd=CHECKOUT,
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with get_client(sync_client=True) as client:
        stored = client.read_deployment_by_name("retrain/retrain")
        assert stored.entrypoint == "flows.retrain.retrain"
        assert json.loads(json.dumps(stored.parameters))["config"]["profile"] == "cpu-demo"
