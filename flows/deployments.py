"""What can be triggered and scheduled: work pools and deployments.

``rlhf deploy`` brings this to a Prefect server. ``prefect.yaml`` says the same for those who deploy
with Prefect's own command: ``python -m flows.deployments`` writes it, and a test compares them.
"""

import datetime
import zoneinfo
from collections.abc import Mapping
from typing import Any

import yaml
from cronsim import CronSim, CronSimError
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows import sample_pairs_flow, stage_flows
from flows.environment import CHECKOUT, OWN_TAG
from flows.feedback_watch import NAME as WATCH
from flows.feedback_watch import retrain_on_new_judgments, watch_feedback
from flows.heartbeats import watch_heartbeats
from flows.judge_pairs_flow import judge_pairs
from flows.pipeline import align
from flows.profiles import PROFILES
from flows.promotion import promote
from flows.retrain import retrain, retrain_demo, with_feedback
from stages.core.artifacts import write_atomically
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

POOLS: dict[str, int | None] = {"cpu": None, "gpu": 1}
"""Work pools, and how many of their runs may run at once."""
ONE_AFTER_THE_OTHER = ConcurrencyLimitConfig(
    limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
)
NO_SECOND = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
RETRAIN = "retrain"
RETRAIN_SCHEDULE = Cron("0 4 * * 0", timezone="UTC", active=False, slug="weekly", parameters={})
WATCH_SCHEDULE = Cron("*/5 * * * *", timezone="UTC", active=False, slug="often", parameters={})
CRON_SLUG = "cron"
"""By it a second ``rlhf deploy --cron`` finds the schedule of the first and changes that one."""
HEADER = "# Written by `python -m flows.deployments`, and checked by the tests: change it there.\n"


def deployments() -> list[RunnerDeployment]:
    """All deployments: the chain once a profile, its retraining and what watches for judgments, and
    each stage on each pool."""
    made = [
        _deployment(
            align,
            name,
            (make.__doc__ or "").strip(),
            "gpu" if make().compute.device == "cuda" else "cpu",
            {"config": make().model_dump(mode="json")},
        )
        for name, make in PROFILES.items()
    ]
    made.append(retraining(RETRAIN, retrain_demo(), RETRAIN_SCHEDULE))
    watch = (watch_feedback, WATCH, _summary(watch_feedback), "cpu")
    made.append(_deployment(*watch, schedule=WATCH_SCHEDULE, limit=NO_SECOND))
    for stage_flow in (
        stage_flows.pretrain,
        stage_flows.sft,
        stage_flows.reward_model,
        stage_flows.classifier,
        stage_flows.ppo,
        stage_flows.benchmarks,
        stage_flows.evaluate,
        sample_pairs_flow.sample_pairs,
    ):
        made += [
            _deployment(stage_flow, f"on-{pool}", _summary(stage_flow), pool) for pool in POOLS
        ]
    for other in (stage_flows.prepare_data, promote, judge_pairs):
        made.append(_deployment(other, "on-cpu", _summary(other), "cpu"))
    return made


def retraining(name: str, config: PipelineConfig, schedule: Schedule) -> RunnerDeployment:
    """Retraining from people's judgments on a schedule. It ends at once where nothing is new; a run
    that is due while the last one still runs is cancelled.

    Raises:
        UserError: the schedule falls where clocks change.
    """
    check_schedule(schedule)
    return _deployment(
        retrain,
        name,
        _summary(retrain),
        "gpu" if config.compute.device == "cuda" else "cpu",
        {"config": with_feedback(config).model_dump(mode="json")},
        schedule,
        NO_SECOND,
    )


def cron(line: str, timezone: str) -> Schedule:
    """A schedule of five cron fields in a time zone.

    Raises:
        UserError: either cannot be read.
    """
    if timezone not in zoneinfo.available_timezones():
        raise UserError(f"schedule {line!r}: no time zone {timezone!r}; write it as Europe/Berlin")
    try:
        CronSim(line, datetime.datetime.now())
    except CronSimError:
        raise UserError(
            f"schedule {line!r}: no cron line of five fields, such as '0 4 * * 0'"
        ) from None
    return Cron(line, timezone=timezone, slug=CRON_SLUG)


def check_schedule(schedule: Schedule) -> None:
    """Refuse cron schedules between 01:00 and 03:00 local time.

    Raises:
        UserError: in these hours clocks change: a run would be skipped, doubled or early.
    """
    if schedule.timezone in (None, "", "UTC"):
        return
    hours = CronSim(schedule.cron or "", datetime.datetime.now()).hours
    if {1, 2} & hours:
        raise UserError(
            f"schedule {schedule.cron!r} ({schedule.timezone}): between 01:00 and 03:00 clocks "
            "change twice a year; choose other hours, or the time zone UTC"
        )


def deploy(more: list[RunnerDeployment] | None = None) -> list[str]:
    """Bring pools, deployments and automations to the server; return the deployments' names.

    What is there already is brought up to date, but limits that somebody set on a pool stay, and so
    does when a deployment runs: its schedules, and whether it is paused. Only those of ``more`` get
    the schedules that they come with. New judgments start the last of them, or ``retrain/retrain``
    where there never was one.

    Raises:
        UserError: one of ``more`` has the name of another deployment.
    """
    built_in, more = deployments(), more or []
    for deployment in more:
        if deployment.full_name in {other.full_name for other in built_in}:
            raise UserError(
                f"--name {deployment.name}: {deployment.full_name} is a deployment of its own, and "
                "the next rlhf up would bring back its settings; choose another name"
            )
    make_pools()
    for deployment in filter(_is_there, built_in):
        _leave_as_stored(deployment, "schedules", "paused")
    for deployment in [*built_in, *more]:
        deployment.apply()
    watch_heartbeats()
    for deployment in more[-1:] or [one for one in built_in if one.flow_name == retrain.name]:
        retrain_on_new_judgments(deployment.full_name, instead=bool(more))
    return [deployment.full_name for deployment in [*built_in, *more]]


def make_pools() -> None:
    """Make the work pools that are not there yet."""
    with get_client(sync_client=True) as client:
        there = {pool.name for pool in client.read_work_pools()}
        for name in POOLS.keys() - there:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
            if POOLS[name] is not None:
                client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=POOLS[name]))


def prefect_yaml() -> str:
    """The text of ``prefect.yaml``."""
    body = {
        "name": "rlhf-flows",
        "prefect-version": "3.8.8",
        "build": None,
        "push": None,
        "pull": None,
        "deployments": [_as_yaml(deployment) for deployment in deployments()],
    }
    return HEADER + str(yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100))


# ------------------------------------------------------------------------------------ helpers


def _deployment(
    stage_flow: Flow[..., Any],
    name: str,
    description: str,
    pool: str,
    parameters: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    limit: ConcurrencyLimitConfig = ONE_AFTER_THE_OTHER,
) -> RunnerDeployment:
    made = stage_flow.to_deployment(
        name=name,
        description=" ".join(description.split()),
        parameters=dict(parameters or {}),
        tags=[name, OWN_TAG],
        schedules=[schedule] if schedule else [],
        concurrency_limit=limit,
        work_pool_name=pool,
        # By module, since the flow's package must be importable by its name.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # a coroutine only inside an event loop
    return made


def _summary(stage_flow: Flow[..., Any]) -> str:
    return (stage_flow.fn.__doc__ or "").split("\n\n")[0]


def _is_there(deployment: RunnerDeployment) -> bool:
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment.full_name)
        except ObjectNotFound:
            return False
    return True


def _leave_as_stored(deployment: RunnerDeployment, *fields: str) -> None:
    """Say nothing of these fields to the server, which changes only what it is sent."""
    for name in fields:
        setattr(deployment, name, None)
        deployment.model_fields_set.discard(name)


def _as_yaml(deployment: RunnerDeployment) -> dict[str, Any]:
    limit = deployment.concurrency_options
    assert limit is not None
    schedules = [
        {
            "cron": item.schedule.cron,
            "timezone": item.schedule.timezone,
            "active": item.active,
            "slug": item.slug,
        }
        for item in deployment.schedules or []
        if isinstance(item.schedule, CronSchedule)
    ]
    return {
        "name": deployment.name,
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "tags": deployment.tags,
        "work_pool": {"name": deployment.work_pool_name},
        "concurrency_limit": {
            "limit": deployment.concurrency_limit,
            "collision_strategy": limit.collision_strategy.value,
        },
        **({"schedules": schedules} if schedules else {}),
        "parameters": _changed(deployment.parameters),
    }


def _changed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without the settings that stand at their defaults."""
    if "config" not in parameters:
        return dict(parameters)
    config = PipelineConfig.model_validate(parameters["config"])
    return {**parameters, "config": config.model_dump(mode="json", exclude_defaults=True)}


if __name__ == "__main__":
    write_atomically(CHECKOUT / "prefect.yaml", prefect_yaml())
