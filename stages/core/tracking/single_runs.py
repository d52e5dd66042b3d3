"""Runs that are neither a pipeline's nor a stage's, such as an import of judgments."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from stages.core.tracking.client import (
    PatientClient,
    experiment_id,
    git_commit,
    log_params,
    process_tags,
)

KEY_TAG = "work_key"


@contextlib.contextmanager
def single_run(experiment: str, name: str, key: str, params: Mapping[str, Any]) -> Iterator[str]:
    """A run for the time of the block; yields its id. The same work, done again or after a kill,
    goes on in the run that it had.

    Args:
        key: names the work: hexadecimal digits.
    """
    client = PatientClient()
    place = experiment_id(client, experiment)
    there = client.search_runs([place], f"tags.{KEY_TAG} = '{key}'", max_results=1)
    if there:
        run_id = str(there[0].info.run_id)
        for tag, value in process_tags().items():
            client.set_tag(run_id, tag, value)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {**process_tags(), KEY_TAG: key, "git_commit": git_commit()}
        run_id = str(client.create_run(place, tags=tags, run_name=name).info.run_id)
        log_params(client, run_id, params)
    try:
        yield run_id
    except BaseException as error:
        is_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        client.set_terminated(run_id, "KILLED" if is_stopped else "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
