"""The flow against a real Prefect server; the stages are real where their work is small."""

import time
from typing import Any
from uuid import UUID

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.flow_engine import run_flow_sync
from prefect.states import AwaitingRetry

from flows import pipeline, progress, stage_flows, stage_task
from flows.profiles import override
from stages.core import tracking
from stages.core.artifacts import StageResult, data_root, make_artifact, write_result
from stages.core.config import Compute, Frozen, PipelineConfig, StageConfig
from stages.core.contracts import Datasets
from stages.core.errors import StageCrashedError, UserError
from stages.core.launch import stage_folder
from stages.core.tracking.client import process_tags

pytestmark = pytest.mark.usefixtures("prefect_server", "data_root")


class Calls:
    """Stands for the stages' processes: counts, and tracks and writes each stage's result."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.fresh: list[bool] = []
        self.crashes: list[BaseException | None] = []
        """How the next stages end, the next one last; None for well."""

    def run_stage(
        self, config: StageConfig, inputs: Frozen, compute: Compute, **options: Any
    ) -> StageResult:
        self.stages.append(config.stage)
        self.fresh.append(options["fresh"])
        options["on_line"]("a line")
        options["on_progress"]({"step": 1, "total": 2, "metrics": {"loss": 0.5}})
        out_dir = stage_folder(config, inputs)
        parent = options["environment"][tracking.PARENT_RUN_VARIABLE]
        client = mlflow.MlflowClient()
        tags = {**process_tags(), "mlflow.parentRunId": parent, "stage_key": out_dir.name}
        experiment = client.get_run(parent).info.experiment_id
        run_id = client.create_run(experiment, tags=tags, run_name=config.stage).info.run_id
        if self.crashes and (crash := self.crashes.pop()) is not None:
            raise crash
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / "train.jsonl").write_text(config.stage, encoding="utf-8")
        data = Datasets(documents=make_artifact("documents", out_dir))
        files = {"train.jsonl": make_artifact("documents", out_dir / "train.jsonl").digest}
        result = StageResult(
            stage=config.stage,
            key=out_dir.name,
            outputs=data.model_dump(mode="json"),
            metrics={"documents": 40.0},
            files=files,
            tracking_run_id=run_id,
        )
        client.set_terminated(run_id)
        write_result(out_dir, result)
        return result


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(stage_task, "run_stage", calls.run_stage)
    monkeypatch.setattr(stage_task.run_or_reuse, "retry_delay_seconds", [0.0, 0.0])
    return calls


def _align(config: PipelineConfig, **options: Any) -> progress.Reporter:
    reporter = progress.Reporter()
    with progress.reporting_to(reporter):
        pipeline.align(config, **{"until_stage": "clean"} | options)
    return reporter


def _flow_run(reporter: progress.Reporter) -> tuple[Any, dict[str, Any]]:
    """The flow run and its task runs by name, when the server has stored all of them."""
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(reporter.flow_run_id)
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        for _ in range(150):
            found = client.read_task_runs(flow_run_filter=of_run)
            ended = [run for run in found if run.state and run.state.is_final()]
            if len(ended) >= len(reporter.rows):
                return flow_run, {run.name: run for run in found}
            time.sleep(0.2)
    raise AssertionError("the task runs were not stored in time")


def _tracked(reporter: progress.Reporter) -> list[Any]:
    """MLflow's parent run and its nested runs."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    ours = [run for run in runs if run.data.tags.get("prefect_flow_run") == reporter.flow_run_id]
    parent = next(run for run in ours if "mlflow.parentRunId" not in run.data.tags)
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return [parent, *nested]


@pytest.mark.slow
def test_one_task_run_a_stage_named_as_the_stage(tiny_config: PipelineConfig, calls: Calls) -> None:
    reporter = _align(tiny_config)
    flow_run, task_runs = _flow_run(reporter)
    assert calls.stages == ["collect", "clean"]
    assert flow_run.name == "tiny seed 0"
    assert "tiny" in flow_run.tags
    assert task_runs.keys() == {"collect", "clean"}
    upstream = {source.id for source in task_runs["clean"].task_inputs["upstream"]}
    assert upstream == {task_runs["collect"].id}
    assert [row.state for row in reporter.rows.values()] == ["done", "done"]
    assert _tracked(reporter)[0].info.status == "FINISHED"


def test_finished_stages_are_reused_and_shown(tiny_config: PipelineConfig, calls: Calls) -> None:
    _align(tiny_config)
    reporter = _align(tiny_config)
    assert calls.stages == ["collect", "clean"]
    _, task_runs = _flow_run(reporter)
    assert {run.state.name for run in task_runs.values()} == {"Reused"}
    assert all(row.seconds < 1 for row in reporter.rows.values())
    nested = _tracked(reporter)[1:]
    assert {run.info.run_name for run in nested} == {"collect", "clean"}
    assert all("reused_from" in run.data.tags for run in nested)


def test_a_changed_setting_makes_its_stage_again(tiny_config: PipelineConfig, calls: Calls) -> None:
    _align(tiny_config)
    _align(override(tiny_config, {"clean.quality.min_characters": 10}))
    assert calls.stages == ["collect", "clean", "clean"]


def test_a_damaged_result_is_made_again(tiny_config: PipelineConfig, calls: Calls) -> None:
    _align(tiny_config)
    (path,) = (data_root() / "runs" / "clean").glob("*/train.jsonl")
    path.write_text("CLEAN", encoding="utf-8")
    _align(tiny_config)
    assert calls.stages == ["collect", "clean", "clean"]


def test_from_and_fresh_make_stages_again(tiny_config: PipelineConfig, calls: Calls) -> None:
    _align(tiny_config)
    calls.stages.clear()
    _align(tiny_config, from_stage="clean")
    assert calls.stages == ["clean"]
    _align(tiny_config, fresh=True)
    assert calls.stages == ["clean", "collect", "clean"]
    assert calls.fresh[2:] == [True, True, True]


def test_a_crash_is_retried_and_then_continues(tiny_config: PipelineConfig, calls: Calls) -> None:
    calls.crashes = [StageCrashedError("killed"), StageCrashedError("killed")]
    _align(tiny_config, fresh=True)
    assert calls.stages == ["collect", "collect", "collect", "clean"]
    # Only the first try throws the old folder away; the next continue from its checkpoints.
    assert calls.fresh == [True, False, False, True]


@pytest.mark.slow
def test_a_run_that_begins_again_takes_its_own_forced_results_and_no_older_ones(
    tiny_config: PipelineConfig, calls: Calls
) -> None:
    _align(tiny_config)
    calls.crashes = [KeyboardInterrupt(), None]
    reporter = progress.Reporter()
    options = {"config": tiny_config, "until_stage": "clean", "fresh": True}
    with progress.reporting_to(reporter), pytest.raises(KeyboardInterrupt):
        pipeline.align(**options)
    assert calls.stages == ["collect", "clean"] * 2
    with get_client(sync_client=True) as client:
        flow_run_id = UUID(reporter.flow_run_id)
        client.set_flow_run_state(flow_run_id, AwaitingRetry(), force=True)
        flow_run = client.read_flow_run(flow_run_id)
    run_flow_sync(pipeline.align, flow_run=flow_run, parameters=options)
    assert calls.stages[4:] == ["clean"]
    assert calls.fresh[4:] == [True]  # what lies there is the older run's


def test_the_third_crash_ends_the_run(tiny_config: PipelineConfig, calls: Calls) -> None:
    calls.crashes = [StageCrashedError("killed; whole log: x.log")] * 3
    reporter = progress.Reporter()
    with progress.reporting_to(reporter), pytest.raises(StageCrashedError, match="whole log"):
        pipeline.align(tiny_config, until_stage="clean")
    assert calls.stages == ["collect"] * 3
    assert _tracked(reporter)[0].info.status == "FAILED"
    flow_run, task_runs = _flow_run(reporter)
    assert flow_run.state.name == "Failed"
    assert task_runs["collect"].state.name == "Failed"


def test_a_refusal_is_not_retried(tiny_config: PipelineConfig, calls: Calls) -> None:
    calls.crashes = [UserError("collect: documents.jsonl:3: broken JSON")]
    with pytest.raises(UserError, match="broken JSON"):
        _align(tiny_config)
    assert calls.stages == ["collect"]


def test_an_interrupt_is_recorded_everywhere(tiny_config: PipelineConfig, calls: Calls) -> None:
    calls.crashes = [KeyboardInterrupt()]
    reporter = progress.Reporter()
    with progress.reporting_to(reporter), pytest.raises(KeyboardInterrupt):
        pipeline.align(tiny_config, until_stage="clean")
    assert reporter.rows["collect"].state == "interrupted"
    assert _tracked(reporter)[0].info.status == "KILLED"
    flow_run, task_runs = _flow_run(reporter)
    assert flow_run.state.name == "Crashed"
    assert task_runs["collect"].state.is_final()


def test_an_earlier_run_without_a_first_stage_is_refused(
    tiny_config: PipelineConfig, calls: Calls
) -> None:
    with pytest.raises(UserError, match="choose in From stage which stage is the first"):
        _align(tiny_config, earlier_run="demo")
    assert calls.stages == []


def test_missing_data_stops_the_run_before_any_stage(
    tiny_config: PipelineConfig, calls: Calls
) -> None:
    with pytest.raises(UserError, match=r"collect\.sft\.paths is empty"):
        _align(tiny_config, until_stage="sft")
    assert calls.stages == []


def test_the_run_form_describes_the_settings() -> None:
    schema = pipeline.align.parameters.model_dump()
    config = schema["definitions"]["PipelineConfig"]["properties"]
    assert config["seed"]["description"]
    assert schema["properties"]["config"]["default"]["profile"] == "cpu-demo"
    assert "ppo" in schema["properties"]["from_stage"]["enum"]
    # Prefect would name them as the code does.
    assert schema["properties"]["config"]["title"] == "Settings"
    assert schema["properties"]["from_stage"]["title"] == "From stage"
    earlier_run = stage_flows.sft.parameters.model_dump()["properties"]["earlier_run"]
    assert earlier_run["description"].startswith("The MLflow run whose results")


@pytest.mark.slow
def test_the_real_first_stages(tiny_config: PipelineConfig) -> None:
    """collect and clean in processes of their own, tracked in MLflow."""
    reporter = _align(tiny_config)
    nested = _tracked(reporter)[1:]
    assert {run.info.run_name: run.info.status for run in nested} == {
        "collect": "FINISHED",
        "clean": "FINISHED",
    }
    (result,) = (data_root() / "runs" / "clean").glob("*/result.json")
    assert result.parent.with_suffix(".log").exists()
