"""Who may review, on a server that asks for accounts."""

import os
from collections.abc import Sequence
from typing import Any

import requests

from stages.core.errors import UserError
from stages.core.tracking.client import patiently, set_up

TIMEOUT_SECONDS = 30.0


def admit(experiment_id: str, reviewers: Sequence[str]) -> tuple[str, ...]:
    """Let reviewers answer in an experiment, and return who they are. On a server with accounts
    nobody answers but who was named: without reviewers it is whoever asks.

    Raises:
        UserError: a reviewer has no account, or the caller may not admit them.
    """
    names = tuple(dict.fromkeys(name.strip() for name in reviewers if name.strip()))
    myself = current_user()
    if not myself:
        return names
    missing = [name for name in names if not _has_account(name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: no account on the MLflow server, so nobody could tell who "
            "judged: add them as flows/README.md shows (Reviewers), or leave them out of reviewers"
        )
    for name in names:
        _grant(name, experiment_id)
    return names or (myself,)


def current_user() -> str:
    """Login of whoever asks, where the server has accounts; else empty."""
    if not set_up().startswith("http"):
        return ""
    answer = _ask("get", "2.0/mlflow/users/current")
    if answer.status_code == 404:
        return ""
    if answer.status_code == 401:
        raise UserError(
            "the MLflow server asks for an account: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD"
        )
    answer.raise_for_status()
    return str(answer.json()["user"]["username"])


# ------------------------------------------------------------------------------------ helpers


def _has_account(name: str) -> bool:
    answer = _ask("get", "2.0/mlflow/users/get", params={"username": name})
    if answer.status_code == 403:
        raise _not_an_admin()
    return answer.status_code != 404


def _grant(name: str, experiment_id: str) -> None:
    """EDIT, which answering needs, in this experiment alone."""
    grant = {
        "username": name,
        "resource_type": "experiment",
        "resource_id": experiment_id,
        "permission": "EDIT",
    }
    answer = _ask("post", "3.0/mlflow/users/permissions/grant", json=grant)
    if answer.status_code == 403:
        raise _not_an_admin()
    answer.raise_for_status()


def _not_an_admin() -> UserError:
    return UserError(
        "reviewers can be admitted by an admin of the MLflow server alone: ask as one, or leave "
        "reviewers empty"
    )


def _ask(method: str, path: str, **named: Any) -> requests.Response:
    """An answer of MLflow's API of accounts, whose own client would load the whole server."""
    login = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return patiently(
        requests.request,
        method,
        f"{set_up().rstrip('/')}/api/{path}",
        auth=login if all(login) else None,
        timeout=TIMEOUT_SECONDS,
        **named,
    )
