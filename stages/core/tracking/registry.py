"""The model registry: the policy's versions and their aliases.

``challenger`` is the newest policy, ``champion`` the one in use, ``previous`` the one before it.
"""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import UserError
from stages.core.tracking.client import PatientClient, mlflow, patiently

POLICY = "rlhf-policy"
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
COMPARED_WITH = "compared_with"
"""Tag: number of the champion that the version was evaluated against, or ``NOBODY``."""
NOBODY = "none"
ROLLED_BACK = "rolled_back"
"""Tag of a version that ``rollback`` took the alias ``champion`` from."""
WITHDRAWN = "withdrawn_annotators"
"""Tag of a version, and of the run that made it: pseudonyms, joined by commas, of those who have
taken back judgments that it learned from."""
COMMENT = "promotion_comment"
"""Tag: what a person said to the version's promotion."""


@dataclass(frozen=True)
class Champion:
    """The version of ``rlhf-policy`` that is in use."""

    version: str
    policy_digest: str
    """Digest of the whole model."""


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
            for name in known.tags.keys() - tags.keys() - {COMMENT, ROLLED_BACK, WITHDRAWN}:
                client.delete_model_version_tag(POLICY, known.version, name)
            if int(known.version) >= int(_number_of(client, CHALLENGER)):
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


def champion() -> Champion | None:
    """The champion, where there is one."""
    client = PatientClient()
    number = _number_of(client, CHAMPION)
    if number == "0":
        return None
    version = client.get_model_version(POLICY, number)
    return Champion(number, version.tags.get("policy_digest", ""))


def promote(which: str, comment: str = "") -> str:
    """Give the alias ``champion`` to the version of ``rlhf-policy`` that ``which`` names: an alias
    or a number. The champion until now becomes ``previous``, and the ``comment`` a tag.

    Who calls this must see to it that no two calls overlap.

    Returns:
        The version's number.

    Raises:
        UserError: there is no such version, or it was compared with another champion than now.
    """
    client = PatientClient()
    version = find_version(client, POLICY, which)
    number, now = str(version.version), _number_of(client, CHAMPION)
    client.set_model_version_tag(POLICY, number, COMMENT, comment)
    if number == now:
        return number
    compared = version.tags.get(COMPARED_WITH)
    if compared is not None and compared != (NOBODY if now == "0" else now):
        with_whom = "no champion" if compared == NOBODY else f"champion {compared}"
        raise UserError(
            f"version {number} was compared with {with_whom}, but version {now} is champion now: "
            "evaluate it again (stage evaluate on its run), then promote it"
        )
    # In this order: a kill in between leaves the champion as it was.
    if now != "0":
        client.set_registered_model_alias(POLICY, PREVIOUS, now)
    client.set_registered_model_alias(POLICY, CHAMPION, number)
    if ROLLED_BACK in version.tags:
        client.delete_model_version_tag(POLICY, number, ROLLED_BACK)
    return number


def leave_as_challenger(number: str, comment: str) -> None:
    """Keep with the version why it did not become champion."""
    PatientClient().set_model_version_tag(POLICY, number, COMMENT, comment)


def was_rolled_back(number: str) -> bool:
    """Whether the version was champion until ``rollback``, and nobody has promoted it since."""
    return ROLLED_BACK in PatientClient().get_model_version(POLICY, number).tags


def rollback() -> tuple[str, str]:
    """Make the ``previous`` champion champion again, and the present one ``previous``.

    Returns:
        The numbers of the champion until now and of the one from now on.

    Raises:
        UserError: there is no previous one.
    """
    client = PatientClient()
    now, before = _number_of(client, CHAMPION), _number_of(client, PREVIOUS)
    if "0" in (now, before) or now == before:
        raise UserError(f"{POLICY} has no previous champion to go back to")
    client.set_registered_model_alias(POLICY, CHAMPION, before)
    client.set_registered_model_alias(POLICY, PREVIOUS, now)
    client.set_model_version_tag(POLICY, now, ROLLED_BACK, "true")
    return now, before


def version_tags(which: str) -> dict[str, str]:
    """Number (as ``version``) and tags of a version of ``rlhf-policy``.

    Raises:
        UserError: there is no such version.
    """
    version = find_version(PatientClient(), POLICY, which)
    return {**version.tags, "version": str(version.version)}


def tag_version(number: str, tags: Mapping[str, str]) -> None:
    """Add tags to a version of ``rlhf-policy``."""
    client = PatientClient()
    for name, value in tags.items():
        client.set_model_version_tag(POLICY, number, name, value)


# ------------------------------------------------------------------------------------ helpers


def _number_of(client: PatientClient, alias: str) -> str:
    """The number of the version that has the alias; 0 where none has."""
    try:
        return str(client.get_model_version_by_alias(POLICY, alias).version)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return "0"
