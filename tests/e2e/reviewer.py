"""A scripted reviewer: works through a queue of MLflow's page Review as a person does.

It knows of a pair what is written on the page, and answers with the page's own form.
"""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.browser import Page, wait

PANEL = "//a[normalize-space()='View full trace']/../.."
"""What is to be compared, left of the form."""
SUBMIT = "//button[normalize-space()='Submit']"
OPTION = "//*[@role='option'][normalize-space()='{}']"
QUESTION = "//button[@role='combobox'][starts-with(@aria-label, '{},')]"
ANSWER_BEGIN = "//span[normalize-space()='{}']/following::textarea[1]"
ITEM = re.compile(r"selectedItemId=([\w-]+)")
"""The pair, in the page's address."""
NEEDS_REVIEW = re.compile(r"^Needs review \((\d+)\)", re.MULTILINE)
"""On the list of a queue's pairs."""
ANSWERS = re.compile(r"\A(.*)^Answer A$(.*)^Answer B$(.*)\Z", re.MULTILINE | re.DOTALL)
SETTLING_SECONDS = 0.05


@dataclass(frozen=True)
class Shown:
    """A pair as it stands on the page."""

    trace_id: str
    prompt: str
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class Answers:
    """What a reviewer enters, by the questions' names; an empty text is not entered."""

    chosen: dict[str, str]
    """Question -> option."""
    written: dict[str, str]
    """Question -> text."""
    reason: str = ""


@dataclass(frozen=True)
class Reviewed:
    """A pair, what was entered, and how long it took from seeing the pair to seeing the next."""

    shown: Shown
    answers: Answers
    seconds: float


def review(
    page: Page, address: str, judge: Callable[[Shown], Answers], limit: int | None = None
) -> list[Reviewed]:
    """Judge the pairs of the queue at ``address`` that nobody has judged yet, ``limit`` of them at
    most."""
    page.open(address)
    reviewed: list[Reviewed] = []
    if _num_left(page) == 0:
        return reviewed
    page.click("//button[normalize-space()='Start review']")
    while limit is None or len(reviewed) < limit:
        shown, began = read(page), time.monotonic()
        answers = judge(shown)
        _enter(page, answers)
        page.click(f"{SUBMIT}[not(@disabled)]")
        all_done = _moved_on(page, shown)
        reviewed.append(Reviewed(shown, answers, time.monotonic() - began))
        if all_done:
            break
    return reviewed


def read(page: Page) -> Shown:
    """The pair on the page, once all of it is there and stays as it is."""

    def settled() -> Shown | None:
        first = _read_now(page)
        time.sleep(SETTLING_SECONDS)
        return first if first is not None and first == _read_now(page) else None

    found = wait(settled, "a pair on the page")
    assert isinstance(found, Shown)
    return found


# ------------------------------------------------------------------------------------ helpers


def _read_now(page: Page) -> Shown | None:
    trace = ITEM.search(page.driver.current_url)
    panels = page.all(PANEL)
    found = ANSWERS.match(_text_of(panels[-1])) if panels else None
    if trace is None or found is None:
        return None
    prompt, answer_a, answer_b = (part.strip() for part in found.groups())
    return Shown(trace[1], prompt.removeprefix("View full trace").strip(), answer_a, answer_b)


def _text_of(element: Any) -> str:
    from selenium.common.exceptions import StaleElementReferenceException

    with contextlib.suppress(StaleElementReferenceException):
        return str(element.text).replace("\N{NO-BREAK SPACE}", " ")
    return ""


def _enter(page: Page, answers: Answers) -> None:
    for question, option in answers.chosen.items():
        if option:
            page.click(QUESTION.format(question))
            page.click(OPTION.format(option))
            wait(lambda: not page.all("//*[@role='option']"), "the end of the list of options")
    for question, text in answers.written.items():
        if text:
            page.find(ANSWER_BEGIN.format(question)).send_keys(text)
    if answers.reason:
        page.find("//textarea[contains(@placeholder, 'Rationale')]").send_keys(answers.reason)


def _num_left(page: Page) -> int:
    """How many pairs the list of the queue still has to be judged."""
    found = wait(lambda: NEEDS_REVIEW.search(page.text()), "the list of the queue's pairs")
    return int(found[1])


def _moved_on(page: Page, before: Shown) -> bool:
    """Wait until the page has taken the answers and shows another pair, or the list of them after
    the last one. Returns whether it was the last one."""

    def shows() -> str:
        if NEEDS_REVIEW.search(page.text()):
            return "list"
        item = ITEM.search(page.driver.current_url)
        return "pair" if item and item[1] != before.trace_id else ""

    return bool(wait(shows, f"the page after {before}") == "list")
