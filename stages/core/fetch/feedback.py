"""People's judgments from MLflow's review queues, as rows that models learn from.

A snapshot has a file for each kind of data and split that has rows, ``reserved.jsonl`` with the
prompts that no training record may have, and ``feedback.json`` (``stages.core.feedback.report``).
"""

import json
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import write_atomically
from stages.core.config import FeedbackSource
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.preferences import FeedbackData, feedback_data
from stages.core.feedback.report import REPORT_FILE, FeedbackReport, log_lines, make_report
from stages.core.fetch.snapshots import Progress, Snapshot, keep, part_folder
from stages.core.schemas import write_jsonl

KINDS = ("preferences", "sft", "prompts")


def fetch_feedback(source: FeedbackSource, cache: Path, progress: Progress) -> Snapshot:
    """The judgments as they are now; equal ones give the earlier snapshot again.

    Raises:
        UserError: nobody has judged yet, or none of the judgments is what the source asks for.
    """
    judgments = tracking.judgments(source.experiment, source.queues)
    progress(len(judgments), 0, "records")
    people = {one.annotator for one in judgments if one.annotator_kind == "human"}
    pseudonyms = {name: tracking.pseudonym(source.experiment, name) for name in sorted(people)}
    published = tracking.published_pairs(source.experiment)
    data = feedback_data(judgments, source, pseudonyms, published)
    if not data.judgments:
        raise UserError(_why_none(source, judgments))
    report = make_report(data, source, pseudonyms)
    print("\n".join(log_lines(report)), flush=True)
    return keep_feedback(cache, source, data, report)


def keep_feedback(
    cache: Path, source: FeedbackSource, data: FeedbackData, report: FeedbackReport
) -> Snapshot:
    """Make a snapshot of the rows and the report on them."""
    part = part_folder(cache, source)
    paths = []
    for name in ("reserved", *KINDS, *(f"{kind}_held_out" for kind in KINDS)):
        rows, path = getattr(data, name), part / f"{name}.jsonl"
        path.unlink(missing_ok=True)  # of a fetch that was broken off
        if rows:
            write_jsonl(path, rows)
            paths.append(path)
    path = part / REPORT_FILE
    text = json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True)
    write_atomically(path, text + "\n")
    version = {
        "judgments": str(report.num_judgments),
        "annotators": str(len(report.annotators)),
        "since": report.first_at.isoformat(),
        "until": report.last_at.isoformat(),
    }
    return keep(cache, source, [*paths, path], records=report.num_judgments, version=version)


# ------------------------------------------------------------------------------------ helpers


def _why_none(source: FeedbackSource, judgments: list[Judgment]) -> str:
    if judgments:
        given = {"annotators": source.annotators, "since": source.since, "until": source.until}
        shown = ", ".join(f"{name}={value}" for name, value in given.items() if value)
        return f"there are {len(judgments)} judgments, but none with {shown}; change these settings"
    page = tracking.experiment_page(source.experiment, "review-queue")
    address = tracking.address()
    # Without a server the page's address is known to ``rlhf up`` alone.
    place = address.rstrip("/") + page if address.startswith("http") else f"MLflow's page {page}"
    return f"nobody has judged a pair yet: open the queue ({place}) and answer, then run again"
