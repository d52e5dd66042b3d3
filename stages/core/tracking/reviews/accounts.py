"""Who may review, on a server that asks for accounts."""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import mlflow
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
    server = importlib.import_module("mlflow.server")
    accounts = server.get_app_client("basic-auth", tracking_uri=set_up())
    missing = [name for name in names if not _has_account(accounts, name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: no account on the MLflow server, so nobody could tell who "
            "judged: add them as flows/README.md shows (Reviewers), or leave them out of reviewers"
        )
    for name in names:
        patiently(accounts.grant_user_permission, name, "experiment", experiment_id, "EDIT")
    return names or (myself,)


def current_user() -> str:
    """Login of whoever asks, where the server has accounts; else empty."""
    uri = set_up()
    if not uri.startswith("http"):
        return ""
    login = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    answer = patiently(
        requests.get,
        f"{uri.rstrip('/')}/api/2.0/mlflow/users/current",
        auth=login if all(login) else None,
        timeout=TIMEOUT_SECONDS,
    )
    if answer.status_code == 404:
        return ""
    answer.raise_for_status()
    return str(answer.json()["user"]["username"])


def _has_account(accounts: Any, name: str) -> bool:
    try:
        patiently(accounts.get_user, name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True
