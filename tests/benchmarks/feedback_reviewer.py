"""A reviewer in MLflow's page Review, played by the calls that the page makes.

The calls and their order are those of the page of MLflow 3.17.2, read from its requests in Chromium
and from its script. What counts here: Submit sends all answers of a trace at once, each with the id
of the answer that it replaces, as far as the page knows of one; then the item becomes complete. The
page tries nothing twice. It shows the error, and the person decides.
"""

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

API = "/ajax-api/3.0/mlflow"
TIMEOUT_SECONDS = 60.0
PATIENCE_SECONDS = 300.0
"""A page that shows errors for so long is given up."""
RELOAD_SHARE, OTHER_MIND_SHARE = 0.5, 0.2
"""Shares of the errors upon which a person loads the page anew, and thinks better of the answer."""
BROKEN_SHARE = 0.03
"""Share of the Submits whose connection breaks off before the server's answer: what was sent is
saved, and the page does not know. A kill does the same, but seldom in just that moment."""
CHANGE_SHARE = 0.05
"""Share of the items that a person comes back to, to answer otherwise."""

Answers = dict[str, str]
"""What is chosen for each question, by its name."""


class PageError(Exception):
    """The page shows that something could not be saved or loaded."""


@dataclass
class Diary:
    """What a reviewer has done, to be held against what MLflow knows."""

    said: dict[str, Answers] = field(default_factory=dict)
    """By trace: the last answers that the page said were saved."""
    num_items: int = 0
    """That the queue held."""
    sent: int = 0
    """Clicks on Submit."""
    repeated: int = 0
    """Of these, after an error."""
    changed: int = 0
    """Of these, on items that were complete."""


class Reviewer(threading.Thread):
    """Answers all items of a queue, by chance.

    Args:
        queue: the queue's id.
        questions: options by name of the question; all are answered.
        seed: decides the answers and what the reviewer does upon an error.
    """

    def __init__(
        self,
        url: str,
        login: tuple[str, str] | None,
        queue: str,
        questions: dict[str, tuple[str, ...]],
        seed: int,
    ) -> None:
        super().__init__(name=f"reviewer {seed}", daemon=True)
        self.diary = Diary()
        self.error: BaseException | None = None
        self._login = login[0] if login else "default"
        self._queue, self._questions = queue, questions
        self._chance = random.Random(seed)
        self._client = httpx.Client(
            base_url=url, auth=login, timeout=TIMEOUT_SECONDS, trust_env=False
        )
        self._senders = ThreadPoolExecutor(len(questions))

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # reported by who joins the thread
            self.error = error
        finally:
            self._senders.shutdown()
            self._client.close()

    def _work(self) -> None:
        done: list[str] = []
        items = self._until_shown(self._items)
        self.diary.num_items = len(items)
        for item in items:
            trace = item["item_id"]
            if item["status"] == "PENDING":
                self._review(trace, is_complete=False)
                done.append(trace)
            if done and self._chance.random() < CHANGE_SHARE:
                self.diary.changed += 1
                self._review(self._chance.choice(done), is_complete=True)

    def _review(self, trace: str, *, is_complete: bool) -> None:
        """Open an item, answer, and submit until the page says that it is saved."""
        known = self._until_shown(lambda: self._own_answers(trace))
        answers = self._decide()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.diary.sent += 1
            try:
                self._submit(trace, answers, known, is_complete)
            except PageError:
                if time.monotonic() > deadline:
                    raise
                self.diary.repeated += 1
                time.sleep(self._chance.uniform(0.5, 2.0))
                if self._chance.random() < RELOAD_SHARE:
                    known = self._until_shown(lambda: self._own_answers(trace))
                    is_complete = self._until_shown(lambda: self._is_complete(trace))
                if self._chance.random() < OTHER_MIND_SHARE:
                    answers = self._decide()
            else:
                self.diary.said[trace] = answers
                return

    def _decide(self) -> Answers:
        return {name: self._chance.choice(options) for name, options in self._questions.items()}

    # ------------------------------------------------------------------------ what the page does

    def _submit(
        self, trace: str, answers: Answers, known: dict[str, str], is_complete: bool
    ) -> None:
        """Send the answers; ``known`` is what the page takes for this reviewer's present answers,
        and is brought up to date after each answer that was saved."""
        sending = [
            self._senders.submit(self._send, trace, name, value, known.get(name))
            for name, value in answers.items()
        ]
        errors = [future.exception() for future in sending]
        if self._chance.random() < BROKEN_SHARE:
            raise PageError("the connection broke off before the answer")
        if not all(errors):
            with contextlib.suppress(PageError):  # the page goes on with what it knew
                known |= self._own_answers(trace)
        for error in filter(None, errors):
            raise error
        if not is_complete:
            body = {"queue_id": self._queue, "item_id": trace, "status": "COMPLETE"}
            self._call("/review-queues/items/set-status", {**body, "completed_by": self._login})
            self._until_shown(self._items)

    def _send(self, trace: str, name: str, value: str, replaced: str | None) -> None:
        assessment = {
            "assessment_name": name,
            "trace_id": trace,
            "source": {"source_type": "HUMAN", "source_id": self._login},
            "feedback": {"value": value},
            **({"overrides": replaced} if replaced else {}),
        }
        self._call(f"/traces/{trace}/assessments", {"assessment": assessment})

    def _own_answers(self, trace: str) -> dict[str, str]:
        """The ids of this reviewer's present answers, by question; of several, the newest."""
        found = self._call(f"/traces/get?trace_id={trace}&allow_partial=true")
        assessments = found["trace"]["trace_info"].get("assessments", [])
        own = [
            one
            for one in assessments
            if one.get("valid", True) and one["source"]["source_id"] == self._login
        ]
        own.sort(key=lambda one: str(one["last_update_time"]))
        return {one["assessment_name"]: one["assessment_id"] for one in own}

    def _items(self) -> list[dict[str, Any]]:
        found = self._call(f"/review-queues/items/list?queue_id={self._queue}")
        items: list[dict[str, Any]] = found.get("review_queue_items", found.get("items", []))
        return items

    def _is_complete(self, trace: str) -> bool:
        return any(i["item_id"] == trace and i["status"] == "COMPLETE" for i in self._items())

    def _until_shown(self, look: Any) -> Any:
        """Load again until the page shows it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return look()
            except PageError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(self._chance.uniform(0.5, 2.0))

    def _call(self, path: str, body: Any = None) -> Any:
        try:
            method = "GET" if body is None else "POST"
            answer = self._client.request(method, API + path, json=body)
        except httpx.HTTPError as error:
            raise PageError(f"{path}: {error!r}") from error
        if answer.is_client_error:  # no matter of patience
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:300]}")
        if answer.is_error:
            raise PageError(f"{path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()
