"""The model registry: the policy's versions and their aliases ``challenger`` and ``champion``."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow

from stages.core.errors import UserError
from stages.core.tracking.client import PatientClient, patiently

POLICY = "rlhf-policy"
CHALLENGER, CHAMPION = "challenger", "champion"


def register_policy(run_id: str, source: Path, tags: Mapping[str, str]) -> str:
    """Register the policy as a version of ``rlhf-policy`` with the alias ``challenger``.

    The model is logged as an external model: its folder as artifacts, its origin as tags. A policy
    whose tag ``policy_digest`` is registered already gets no new version, only the new tags.

    Returns:
        The version's number.
    """
    client = PatientClient()
    for known in client.search_model_versions(f"name = '{POLICY}'"):
        if tags.get("policy_digest", "") == known.tags.get("policy_digest"):
            for name, value in tags.items():
                client.set_model_version_tag(POLICY, known.version, name, value)
            client.set_registered_model_alias(POLICY, CHALLENGER, known.version)
            return str(known.version)
    experiment = client.get_run(run_id).info.experiment_id
    logged = patiently(
        mlflow.create_external_model,
        name="policy",
        source_run_id=run_id,
        tags=dict(tags),
        experiment_id=experiment,
    )
    client.log_model_artifacts(logged.model_id, str(source))
    client.finalize_logged_model(logged.model_id, "READY")
    with contextlib.redirect_stderr(io.StringIO()):  # it announces itself on the terminal
        version = patiently(
            mlflow.register_model, f"models:/{logged.model_id}", POLICY, tags=dict(tags)
        )
    client.set_registered_model_alias(POLICY, CHALLENGER, version.version)
    return str(version.version)


def find_version(client: PatientClient, name: str, which: str) -> Any:
    """The version of a registered model that an alias or a number points to.

    Raises:
        UserError: there is none; names those that are.
    """
    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = client.search_model_versions(f"name = '{name}'")
        there = ", ".join(str(version.version) for version in known) or "none"
        raise UserError(
            f"no version {which!r} of the registered model {name!r}; versions there: {there}"
        ) from None


def promote(which: str, comment: str = "") -> str:
    """Give the alias ``champion`` to the version of ``rlhf-policy`` that ``which`` names: an alias
    or a number. The ``comment`` is kept as a tag. Returns the version's number.

    Raises:
        UserError: there is no such version.
    """
    client = PatientClient()
    version = find_version(client, POLICY, which)
    client.set_model_version_tag(POLICY, version.version, "promotion_comment", comment)
    client.set_registered_model_alias(POLICY, CHAMPION, version.version)
    return str(version.version)


def version_tags(which: str) -> dict[str, str]:
    """Number (as ``version``) and tags of a version of ``rlhf-policy``.

    Raises:
        UserError: there is no such version.
    """
    version = find_version(PatientClient(), POLICY, which)
    return {**version.tags, "version": str(version.version)}
