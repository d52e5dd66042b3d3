"""Pairs, and what people and models say about them."""

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import requests
from werkzeug.security import generate_password_hash

from flows import servers
from flows.access import AUTH_CONFIG
from flows.environment import mlflow_folder
from stages.core.config import ReviewQueueConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.tracking.client import PatientClient, experiment_id
from stages.core.tracking.reviews.questions import VERDICT

ADMIN = ("admin", "password-of-admin")
LOGINS = {"anna": "password-of-anna", "ben": "password-of-ben"}


@pytest.fixture
def make_pairs():
    """A function: so many pairs, from a number on."""

    def make(count, start=0, **fields):
        return [
            CandidatePair(
                pair_id=pair_id(f"Question {number}?", f"Reply {number}.", "Another."),
                prompt=f"Question {number}?",
                reply_a=f"Reply {number}.",
                reply_b="Another.",
                **{"model_a": "champion", "model_b": "sft", "margin": 0.5} | fields,
            )
            for number in range(start, start + count)
        ]

    return make


@pytest.fixture
def config(request):
    """Settings of a queue in an experiment named as the test."""
    return ReviewQueueConfig(experiment=request.node.name, name="round 1")


@pytest.fixture
def run_id(client):
    """A run for the pairs' file, in an experiment that reviewers do not see."""
    return client.create_run(experiment_id(PatientClient(), "pipelines")).info.run_id


@pytest.fixture
def judged():
    """A function: a judgment about a pair."""

    def make(pair, verdict="a", annotator="anna", **fields):
        usual = {"annotator_kind": "human", "created_at": datetime(2026, 11, 2, 8, tzinfo=UTC)}
        return Judgment(
            judgment_id="",
            trace_id="",
            queue="",
            pair=pair,
            verdict=verdict,
            annotator=annotator,
            **usual | fields,
        )

    return make


@dataclass(frozen=True)
class Page:
    """A reviewer at the page Review, played by the calls that the page makes."""

    url: str
    login: tuple[str, str] | None = None

    def answer(self, trace_id, answers, reason="", name=""):
        """Save answers by question; in another's name if one is given."""
        for question, value in answers.items():
            assessment = {
                "assessment_name": question,
                "trace_id": trace_id,
                "source": {"source_type": "HUMAN", "source_id": name or self.login[0]},
                "feedback": {"value": value},
                **({"rationale": reason} if reason and question == VERDICT else {}),
            }
            self.post(f"traces/{trace_id}/assessments", {"assessment": assessment})

    def finish(self, item, status="COMPLETE", name=""):
        body = {"queue_id": item.queue_id, "item_id": item.trace_id, "status": status}
        if status != "PENDING":
            body["completed_by"] = name or self.login[0]
        self.post("review-queues/items/set-status", body)

    def post(self, path, body):
        url = f"{self.url}/ajax-api/3.0/mlflow/{path}"
        answer = requests.post(url, json=body, auth=self.login, timeout=60)
        if answer.status_code >= 400:
            raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The address of a real MLflow server with accounts: admin, anna and ben, who may read nothing
    that they were not admitted to."""
    # Undone before the first test: others of the session are not to see this server's variables.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(tmp_path_factory.mktemp("served")))
        patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
        patch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_folder().mkdir(parents=True, exist_ok=True)
        rules = AUTH_CONFIG.format(database=mlflow_folder() / "accounts.db")
        (mlflow_folder() / "strict.ini").write_text(rules.replace("READ", "NO_PERMISSIONS"))
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(mlflow_folder() / "strict.ini"))
        server = servers.start_mlflow(servers.free_port())
        accounts = mlflow_folder() / "accounts.db"
    with servers.stopped_at_exit(server):
        servers.wait_until_healthy(server)
        for name, password in LOGINS.items():
            answer = requests.post(
                f"{server.url}/api/2.0/mlflow/users/create",
                json={"username": name, "password": password},
                auth=ADMIN,
                timeout=60,
            )
            answer.raise_for_status()
        _check_passwords_quickly(accounts)
        yield server.url


def _check_passwords_quickly(path):
    """A hash of a single round: the server checks the password at each request."""
    with contextlib.closing(sqlite3.connect(path)) as accounts, accounts:
        for name, password in (ADMIN, *LOGINS.items()):
            quick = generate_password_hash(password, "pbkdf2:sha256:1")
            accounts.execute("update users set password_hash = ? where username = ?", (quick, name))


@pytest.fixture
def admin(served, monkeypatch, tmp_path):
    """Our own calls are those of the server's admin."""
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
    return served


@pytest.fixture
def served_run(admin):
    """A run on that server, in an experiment that reviewers may not change."""
    client = PatientClient()
    return client.create_run(experiment_id(client, "pipelines")).info.run_id


@pytest.fixture
def page(served):
    """A function: the page as this reviewer has it open."""
    return lambda name: Page(served, (name, LOGINS[name]))
