"""The page of ``rlhf status``: coloured tables on a terminal, the same words when piped."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.progress import duration, figures_text

FIGURES = {
    "win_rate_policy_vs_champion": "wins against champion",
    "win_rate_policy_vs_sft": "wins against SFT",
    "random_share_accuracy_after": "random share",
    "reward_model_accuracy": "reward model",
    "kl_policy": "KL",
}
"""Those that a run or a version is judged by, the most telling first, and how they are called."""
MAX_FIGURES = 3
STYLES = {
    "finished": "green",
    "running": "cyan",
    "suspended": "yellow",
    "failed": "bold red",
    "killed": "bold red",
}
PIPED_WIDTH = 200
"""Columns where no terminal says how many it has: nothing is cut off."""
FIRST_RUN = (
    "No run yet. rlhf run --profile cpu-demo makes the demo's model (about 8 minutes on 2 cores); "
    "rlhf check FILE looks at data of your own."
)
NO_JUDGMENTS = "None yet: rlhf feedback ask opens a review queue, rlhf feedback import reads files."
MAX_QUEUES = 5
NO_SERVER = "No Prefect server runs, so nothing runs on schedule: start one with rlhf up."
NO_SCHEDULE = "No schedule is on: rlhf deploy --cron '0 4 * * 0' --timezone Europe/Berlin."


def main_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures that tell most, at most three."""
    known = [name for name in FIGURES if name in metrics]
    others = [name for name in metrics if "/" not in name and not name.startswith("train_")]
    return {name: metrics[name] for name in (known or others)[:MAX_FIGURES]}


def show(facts: Mapping[str, Any], console: Console) -> None:
    """Print the page."""
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPED_WIDTH, highlight=False)
    page, problems = Page(console), facts["problems"]
    page.head("Last runs")
    _show_runs(page, facts["runs"])
    page.problem(problems.get("MLflow"))
    if facts["versions"]:
        page.head("rlhf-policy")
        _show_versions(page, facts["versions"])
    if facts["runs"] is not None:
        page.head("Judgments")
        _show_judgments(page, facts["judgments"])
    page.head("Next")
    _show_next(page, facts["next"])
    if facts["next"] is None and "Prefect" not in problems:
        page.line(NO_SERVER)
    page.problem(problems.get("Prefect"))


class Page:
    """Heads, lines and tables, one below the other."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_first = True

    def head(self, text: str) -> None:
        if not self._is_first:
            self._console.print()
        self._is_first = False
        self._console.print(text, style="bold")

    def line(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)

    def problem(self, text: str | None) -> None:
        if text:
            self.line(text, "yellow")

    def table(self, rows: list[tuple[str, ...]]) -> None:
        """Cells may hold markup; the last column takes what is left of the width."""
        table = Table(box=None, show_header=False, pad_edge=False)
        for _ in rows[0][:-1]:
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)


# ------------------------------------------------------------------------------------ helpers


def _show_runs(page: Page, runs: list[dict[str, Any]] | None) -> None:
    if runs:
        page.table([_run_row(run) for run in runs])
    elif runs == []:
        page.line(FIRST_RUN)


def _run_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    state, style = run["state"], STYLES.get(run["state"], "")
    gate = run["gate"].partition(":")[0]
    result = f"version {run['policy_version']}, gate {gate}  " if run["policy_version"] else ""
    if gate == "refused" and not result:
        result = "gate refused  "
    return (
        escape(_named(run["experiment"], run["name"])),
        f"[{style}]{state}[/]" if style else state,
        _local(run["started"]),
        duration(run["seconds"]),
        escape(result + _figures(run["figures"])),
    )


def _named(experiment: str, name: str) -> str:
    return name if name.startswith(experiment) else f"{experiment}: {name}"


def _figures(figures: Mapping[str, float]) -> str:
    labelled = {FIGURES.get(name, name): value for name, value in figures.items()}
    return figures_text("", labelled)


def _show_versions(page: Page, versions: Mapping[str, Mapping[str, Any]]) -> None:
    page.table(
        [
            (
                alias,
                f"version {version['number']}",
                _local(version["created"]),
                escape(_gate(version["gate"])),
                escape(_figures(version["figures"])),
            )
            for alias, version in versions.items()
        ]
    )
    if "champion" not in versions:
        page.line("No champion yet: answer the run's question in Prefect, or run promote.")


def _show_judgments(page: Page, found: Mapping[str, Any] | None) -> None:
    if found is None:
        page.line(NO_JUDGMENTS)
        return
    by_kind = f"{found['human']:,} by people, {found['ai']:,} by models"
    learned = found["last_learned"]
    since = f"{found['since']:,} of them since {learned['run']} " if learned else ""
    since += f"(version {learned['version']})" if learned else "no model has learned from them yet"
    page.line(f"{found['total']:,} judgments: {by_kind}; {since}")
    place = found["page"] + ("" if found["page_is_served"] else " (once rlhf up serves it)")
    pending, queues = found["pending"], len(found["queues"])
    answers, nouns = "answer" if pending == 1 else "answers", "queue" if queues == 1 else "queues"
    page.line(f"{pending:,} {answers} wanted in {queues:,} {nouns}: {place}")
    waiting = [queue for queue in found["queues"] if queue["pending"]]
    rows = [
        (escape(queue["name"]), f"{queue['finished']:,} done, {queue['pending']:,} to do")
        for queue in waiting[:MAX_QUEUES]
    ]
    if rows:
        page.table([("", *row) for row in rows])
    if len(waiting) > MAX_QUEUES:
        page.line(f"  and {len(waiting) - MAX_QUEUES:,} more queues")


def _gate(verdict: str) -> str:
    return f"gate {verdict.partition(':')[0]}" if verdict else ""


def _show_next(page: Page, found: Mapping[str, Any] | None) -> None:
    if found is None:
        return
    if found["next_runs"]:
        page.table(
            [
                (
                    escape(run["deployment"]),
                    _due(run["due"]),
                    escape(run["schedule"] or "triggered; it waits for a worker"),
                )
                for run in found["next_runs"]
            ]
        )
    else:
        page.line(NO_SCHEDULE)
    if found["paused"]:
        page.line(f"Schedule off: {', '.join(found['paused'])}")
    for name, is_on in found["automations"].items():
        page.line(f"Automation {'on' if is_on else 'OFF'}: {name}", "" if is_on else "yellow")


def _due(time: str) -> str:
    is_late = datetime.fromisoformat(time) < datetime.now(UTC)
    return _local(time) + (" (late: does a worker run?)" if is_late else "")


def _local(time: str) -> str:
    """In the machine's time zone, which is named."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M %Z")
