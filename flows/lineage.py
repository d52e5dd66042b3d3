"""Which judgments a run learns from: said in its tags, in its policy's, and on the judged pairs."""

import json
from collections.abc import Mapping

from flows.servers import mlflow_address
from stages.core import tracking
from stages.core.artifacts import StageResult, data_root
from stages.core.config import FeedbackSource, PipelineConfig
from stages.core.feedback.judgments import AnnotatorKind
from stages.core.feedback.report import REPORTS, FeedbackReport, read_report
from stages.core.tracking import lineage

VERSION_PAGE = f"#/models/{tracking.POLICY}/versions"
"""Below the address of the MLflow UI."""
KINDS: tuple[AnnotatorKind, ...] = ("human", "ai")


def sources(config: PipelineConfig) -> tuple[FeedbackSource, ...]:
    """Where the run's preferences come from judgments."""
    return config.collect.preferences.feedback


def kinds(annotators: str) -> tuple[AnnotatorKind, ...]:
    """Whose judgments a source's setting ``annotators`` means."""
    return KINDS if annotators == "all" else tuple(kind for kind in KINDS if kind == annotators)


def kinds_wanted(config: PipelineConfig) -> dict[str, tuple[AnnotatorKind, ...]]:
    """Whose judgments the run learns from, by experiment, however many sources name it."""
    wanted: dict[str, set[AnnotatorKind]] = {}
    for source in sources(config):
        wanted.setdefault(source.experiment, set()).update(kinds(source.annotators))
    return {name: tuple(sorted(found)) for name, found in wanted.items()}


def before_fetching(config: PipelineConfig) -> dict[str, str]:
    """The tag that says how many judgments there are when the run begins to read them."""
    experiments = sorted({source.experiment for source in sources(config)})
    if not experiments:
        return {}
    seen = {
        name: {kind: tracking.count_judgments(name, kind=kind) for kind in KINDS}
        for name in experiments
    }
    return {lineage.FEEDBACK_SEEN: json.dumps(seen)}


def feedback_tags(results: Mapping[str, StageResult]) -> dict[str, str]:
    """What the run's tags and its policy's say of the judgments that were collected; nothing where
    there are none."""
    reports = _reports(results)
    if not reports:
        return {}
    judgments = {one.judgment_id for report in reports.values() for one in report.judgments}
    annotators = {(one.kind, one.annotator) for r in reports.values() for one in r.annotators}
    until = max(report.last_at for report in reports.values())
    return {
        lineage.FEEDBACK_SNAPSHOT: ",".join(reports),
        lineage.FEEDBACK_JUDGMENTS: str(len(judgments)),
        lineage.FEEDBACK_ANNOTATORS: str(len(annotators)),
        lineage.FEEDBACK_UNTIL: until.isoformat(),
    }


def tag_judged(results: Mapping[str, StageResult], run_id: str, version: str) -> None:
    """Say on the judged pairs which run has learned from them, and which policy it made; in the
    descriptions of both, where the pairs are."""
    reports = _reports(results)
    if not reports:
        return
    page = tracking.run_page(run_id)
    tags = {
        lineage.USED_IN_RUN: run_id,
        lineage.USED_IN_VERSION: version,
        lineage.USED_IN_PAGE: mlflow_address() + page,
    }
    for report in reports.values():
        traces = sorted({one.trace_id for one in report.judgments})
        tracking.tag_pairs(report.experiment, traces, tags)
    count = feedback_tags(results)[lineage.FEEDBACK_JUDGMENTS]
    pairs = {
        report.experiment: tracking.experiment_page(report.experiment, "traces")
        for report in reports.values()
    }
    links = [f"[judged pairs of {name}]({path[1:]})" for name, path in pairs.items() if path]
    links.append(f"[{tracking.POLICY} version {version}]({VERSION_PAGE}/{version})")
    links.append(f"[run]({page[1:]})")
    lineage.describe(run_id, version, f"Learned from {count} judgments: {' · '.join(links)}")


# ------------------------------------------------------------------------------------ helpers


def _reports(results: Mapping[str, StageResult]) -> dict[str, FeedbackReport]:
    """What the stage collect keeps of each snapshot of judgments, by the snapshot's digest."""
    if "collect" not in results:
        return {}
    folder = data_root() / "runs" / "collect" / results["collect"].key / REPORTS
    return {path.stem: read_report(path) for path in sorted(folder.glob("*.json"))}
