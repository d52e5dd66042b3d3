"""The only package that imports mlflow: runs, metrics, tables, plots, data sets, model registry.

One parent run a pipeline run, one nested run a stage. ``pipeline_runs`` is the flow's side and
``stage_runs`` that of a stage's process; ``registry`` holds the model versions, and
``earlier_results`` finds and fetches what other runs, on other machines too, have finished;
``references`` says which results are still needed, ``lineage`` what learned from which judgments,
``overview`` what ``rlhf status`` shows.
``client`` must be imported first: it makes the import of mlflow lazy.
"""

from stages.core.tracking.client import address, git_commit, impatiently, set_up
from stages.core.tracking.earlier_results import EarlierRun, earlier_run, fetch
from stages.core.tracking.lineage import Learned, experiment_page, last_learned, run_tags
from stages.core.tracking.overview import RunLine, VersionLine, last_runs, policy_versions
from stages.core.tracking.pipeline_runs import (
    end_abandoned_runs,
    end_pipeline_run,
    end_suspended_runs,
    has_begun_here,
    log_report,
    log_reused,
    made_in,
    run_page,
    start_pipeline_run,
    start_run,
    suspend_pipeline_run,
    tag_run,
)
from stages.core.tracking.references import References, is_stored, read_references
from stages.core.tracking.registry import (
    COMPARED_WITH,
    NOBODY,
    POLICY,
    Champion,
    champion,
    leave_as_challenger,
    promote,
    register_policy,
    rollback,
    version_tags,
    was_rolled_back,
)
from stages.core.tracking.reviews import (
    OpenedQueue,
    Removed,
    count_judgments,
    judgments,
    open_queue,
    pending_pairs,
    pseudonym,
    published_pairs,
    record_judgments,
    remove_reviewer,
    tag_pairs,
)
from stages.core.tracking.single_runs import single_run
from stages.core.tracking.stage_runs import (
    FLOW_RUN_VARIABLE,
    PARENT_RUN_VARIABLE,
    log_figure,
    log_metrics,
    log_result,
    log_table,
    report_progress,
    restart_metrics,
    stage_run,
)

__all__ = [
    "COMPARED_WITH",
    "FLOW_RUN_VARIABLE",
    "NOBODY",
    "PARENT_RUN_VARIABLE",
    "POLICY",
    "Champion",
    "EarlierRun",
    "Learned",
    "OpenedQueue",
    "References",
    "Removed",
    "RunLine",
    "VersionLine",
    "address",
    "champion",
    "count_judgments",
    "earlier_run",
    "end_abandoned_runs",
    "end_pipeline_run",
    "end_suspended_runs",
    "experiment_page",
    "fetch",
    "git_commit",
    "has_begun_here",
    "impatiently",
    "is_stored",
    "judgments",
    "last_learned",
    "last_runs",
    "leave_as_challenger",
    "log_figure",
    "log_metrics",
    "log_report",
    "log_result",
    "log_reused",
    "log_table",
    "made_in",
    "open_queue",
    "pending_pairs",
    "policy_versions",
    "promote",
    "pseudonym",
    "published_pairs",
    "read_references",
    "record_judgments",
    "register_policy",
    "remove_reviewer",
    "report_progress",
    "restart_metrics",
    "rollback",
    "run_page",
    "run_tags",
    "set_up",
    "single_run",
    "stage_run",
    "start_pipeline_run",
    "start_run",
    "suspend_pipeline_run",
    "tag_pairs",
    "tag_run",
    "version_tags",
    "was_rolled_back",
]
