"""The ``align`` flow as one deployment a profile, served by a process that ``rlhf up`` starts."""

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from flows.pipeline import align
from flows.profiles import PROFILES


def deployments() -> list[RunnerDeployment]:
    """One deployment a profile; its run form shows every setting of the profile."""
    made = []
    for name, make in PROFILES.items():
        deployment = align.to_deployment(
            name=name,
            description=(make.__doc__ or "").strip(),
            parameters={"config": make().model_dump(mode="json")},
            tags=[name],
            # By module, since the flow's package must be importable by its name.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)  # a coroutine only inside an event loop
        made.append(deployment)
    return made


def main() -> None:
    """Serve the deployments, one run at a time, until this process is ended."""
    serve(*deployments(), limit=1, print_starting_message=False)


if __name__ == "__main__":
    main()
